//! One process takes over from another that runs: listeners are handed over with nobody refused,
//! and what the other one has under way it brings to its end.
//!
//! The one that runs listens on a socket of the network namespace which has the name of its first
//! address. Another one asks there, gets the listening sockets, and starts; only once it is ready
//! does it say so, and the first one accepts nothing more from then on. Whatever goes wrong before
//! leaves the first one as it was. Each of the two believes nobody but a process of its own user,
//! and root, who has another one started.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::iter;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Uid, getuid};

/// Most listening sockets that are handed over.
const MOST_SOCKETS: usize = 64;
/// Longest line of either side.
const LONGEST_LINE: u64 = 256;
/// Longest that one side waits for the other's next word, but for that it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often one that hangs up is asked again, and after how long.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// What is asked, and answered.
const TAKE: &str = "take 1";
const READY: &str = "ready";
const YOURS: &str = "yours";
const START: &str = "start";

/// The name of the socket of a process that listens at an address first.
fn name(address: SocketAddr) -> io::Result<Name> {
    Name::from_abstract_name(format!("snapedge/{address}"))
}

/// Listens for those who want to take over.
pub(super) fn listen(address: SocketAddr) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&name(address)?)
}

/// Which process is at the other end; an error where that is a user's who is not to be `believed`
/// and not this process's own.
fn peer(stream: &UnixStream, believed: impl FnOnce(Uid) -> bool) -> io::Result<i32> {
    let credentials = socket_peercred(stream)?;
    if credentials.uid != getuid() && !believed(credentials.uid) {
        let message = "the process at the other end is another user's";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(credentials.pid.as_raw_nonzero().get())
}

fn say(mut stream: &UnixStream, word: &str) -> io::Result<()> {
    stream.write_all(format!("{word}\n").as_bytes())
}

/// The next line; an error where the other side has gone.
fn hear(stream: &UnixStream, patience: Option<Duration>) -> io::Result<String> {
    stream.set_read_timeout(patience)?;
    let mut line = String::new();
    let mut bounded = BufReader::with_capacity(1, io::Read::take(stream, LONGEST_LINE));
    bounded.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn expect(stream: &UnixStream, word: &str, patience: Option<Duration>) -> io::Result<()> {
    let heard = hear(stream, patience)?;
    if heard == word {
        return Ok(());
    }
    let heard: String = heard.chars().filter(|c| !c.is_control()).collect();
    Err(io::Error::other(format!("the other process says `{heard}` in place of `{word}`")))
}

/// What somebody wants of the process that runs.
pub(super) enum Wish {
    /// The listeners of that process, for one of this number.
    Take(Successor),
    /// Another process in its place, which it starts itself.
    Start(Asker),
}

/// A process that takes over.
pub(super) struct Successor {
    stream: UnixStream,
    pub(super) pid: i32,
}

/// Who has another process started.
pub(super) struct Asker(UnixStream);

impl Asker {
    /// Tells what came of it.
    pub(super) fn answer(&self, outcome: &Result<(), String>) {
        let word = match outcome {
            Ok(()) => READY.to_owned(),
            Err(why) => why.chars().filter(|c| !c.is_control()).take(200).collect(),
        };
        // Who asked may have left.
        let _ = say(&self.0, &word);
    }
}

/// Waits for what one wants who connects. Blocks.
pub(super) fn wish(stream: UnixStream) -> io::Result<Wish> {
    // Who is root may do everything anyhow.
    let pid = peer(&stream, Uid::is_root)?;
    match hear(&stream, Some(PATIENCE))?.as_str() {
        TAKE => Ok(Wish::Take(Successor { stream, pid })),
        START => Ok(Wish::Start(Asker(stream))),
        _ => Err(io::Error::other("it speaks another language, is it another version?")),
    }
}

impl Successor {
    /// Hands these listening sockets over, and first the one on which this was asked. Blocks.
    pub(super) fn give(&self, here: &UnixListener, sockets: &[OwnedFd]) -> io::Result<()> {
        let borrowed = iter::once(here.as_fd()).chain(sockets.iter().map(AsFd::as_fd));
        let borrowed: Vec<BorrowedFd<'_>> = borrowed.collect();
        let count = u8::try_from(borrowed.len()).unwrap_or(u8::MAX);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other("there are more listening sockets than can be passed"));
        }
        let message = [count];
        sendmsg(&self.stream, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits until it is ready, however long that takes: it ends the connection where it is not
    /// going to be. Blocks.
    pub(super) fn is_ready(&self) -> io::Result<()> {
        expect(&self.stream, READY, None)
    }

    /// Says that everything is its own from now on.
    pub(super) fn release(&self) {
        // Where it has gone meanwhile nobody is left to hear it.
        let _ = say(&self.stream, YOURS);
    }
}

/// The process that is taken over from.
pub(super) struct Predecessor {
    stream: UnixStream,
    /// Where it listens for those who want to take over. The name is never free, so that nobody
    /// who asks in between finds no one.
    listener: UnixListener,
}

impl Predecessor {
    /// Asks the process that listens at an address first for its listening sockets. Blocks.
    pub(super) fn ask(address: SocketAddr) -> io::Result<(Self, Vec<OwnedFd>)> {
        again(|| Self::ask_once(address))
    }

    fn ask_once(address: SocketAddr) -> io::Result<(Self, Vec<OwnedFd>)> {
        let stream = UnixStream::connect_addr(&name(address)?)?;
        peer(&stream, |_| false)?;
        say(&stream, TAKE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut count = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(&stream, &mut [IoSliceMut::new(&mut count)], &mut control, flags)?;
        let mut sockets = VecDeque::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(all) = message {
                sockets.extend(all);
            }
        }
        if read.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_all = sockets.len() == usize::from(count[0]);
        match sockets.pop_front() {
            Some(listener) if is_all => {
                let listener = UnixListener::from(listener);
                Ok((Self { stream, listener }, sockets.into()))
            }
            _ => Err(io::Error::other("its sockets did not come with its answer")),
        }
    }

    /// Says that this process is ready, and waits until everything is its own; also where the other
    /// one has gone meanwhile. The next one that takes over asks there. Blocks.
    pub(super) fn take(self) -> UnixListener {
        let Self { stream, listener } = self;
        if let Err(error) =
            say(&stream, READY).and_then(|()| expect(&stream, YOURS, Some(PATIENCE)))
        {
            log::warn!("the process that was taken over from went without a word: {error}");
        }
        listener
    }
}

/// Asks again for a while where one hangs up: who has just been taken over from does, and the one
/// in its place listens by the same socket.
fn again<T>(ask: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match ask() {
            Err(error) if is_hanging_up(&error) => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    ask()
}

fn is_hanging_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Has the process that listens at an address first start another one in its place, and waits until
/// that one is ready. Blocks.
pub(super) fn start(address: SocketAddr) -> Result<(), String> {
    let ask = || -> io::Result<String> {
        let stream = UnixStream::connect_addr(&name(address)?)?;
        // Root asks the process of another user, which gives it nothing but a word.
        peer(&stream, |_| getuid().is_root())?;
        say(&stream, START)?;
        hear(&stream, None)
    };
    match again(ask) {
        Ok(word) if word == READY => Ok(()),
        Ok(why) => Err(why),
        Err(error) => Err(format!("no process of this user listens at {address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// An address whose name nobody else has.
    fn taken() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    fn accept(listener: &UnixListener) -> io::Result<Wish> {
        wish(listener.accept().expect("one connects").0)
    }

    #[test]
    fn listening_sockets_go_from_one_to_the_other() {
        let (socket, address) = taken();
        let listener = listen(address).expect("a free name");
        assert!(listen(address).is_err(), "one has it");
        let successor = std::thread::spawn(move || {
            let (predecessor, sockets) = Predecessor::ask(address).expect("sockets");
            let socket = TcpListener::from(sockets.into_iter().next().expect("one"));
            assert_eq!(socket.local_addr().expect("bound"), address);
            let listener = predecessor.take();
            socket.accept().expect("a client");
            listener
        });
        let Ok(Wish::Take(one)) = accept(&listener) else { panic!("it takes over") };
        assert_eq!(one.pid.unsigned_abs(), std::process::id());
        one.give(&listener, &[OwnedFd::from(socket)]).expect("handed over");
        one.is_ready().expect("it is");
        one.release();
        TcpStream::connect(address).expect("still listened on");
        drop(listener);
        // The name goes over as well.
        let next = std::thread::spawn(move || Predecessor::ask(address).map(drop));
        let listener = successor.join().expect("no panic");
        let Ok(Wish::Take(one)) = accept(&listener) else { panic!("it takes over") };
        one.give(&listener, &[]).expect("handed over");
        next.join().expect("no panic").expect("sockets");
    }

    #[test]
    fn who_does_not_become_ready_leaves_everything_as_it_was() {
        let (_socket, address) = taken();
        let listener = listen(address).expect("a free name");
        let successor = std::thread::spawn(move || drop(Predecessor::ask(address)));
        let Ok(Wish::Take(one)) = accept(&listener) else { panic!("it takes over") };
        one.give(&listener, &[]).expect("nothing");
        successor.join().expect("no panic");
        assert!(one.is_ready().is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        let (_socket, address) = taken();
        let listener = listen(address).expect("a free name");
        for text in [&b"take 2\n"[..], b"x", b"", &[b'x'; 1000]] {
            let mut stream =
                UnixStream::connect_addr(&name(address).expect("a name")).expect("connected");
            stream.write_all(text).expect("written");
            drop(stream);
            assert!(accept(&listener).is_err(), "{text:?}");
        }
        assert!(Predecessor::ask("127.0.0.1:1".parse().expect("one")).is_err(), "nobody is there");
        assert!(start("127.0.0.1:1".parse().expect("one")).is_err());
    }
}
