//! A file, or standard error, that lines are written to by a thread of its own: who has a line to
//! write never waits for the disk, or for whoever reads the pipe.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::limit::LogLimiter;

/// Most bytes of lines that wait to be written. Of more, the new lines are dropped and counted.
const MAX_WAITING: usize = 1 << 20;
/// Most bytes of one line; what is longer is cut.
pub(super) const MAX_LINE: usize = 16 << 10;
/// Bytes that are written at once, without waiting for more.
const BLOCK: usize = 64 << 10;
/// How long lines of many requests are collected: to wake the thread costs more than a line does.
const COLLECTING: Duration = Duration::from_millis(20);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Standard error of the process.
    Stderr,
    /// A file, at the end of what it holds.
    File(PathBuf),
}

/// When a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At once, with those before it.
    Now,
    /// With others, in a moment.
    Soon,
}

/// The way to a thread that writes lines. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Handle>);

/// What ends the thread when it is dropped.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Condvar,
    dropped: Arc<AtomicU64>,
}

/// What the thread does about what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thread {
    /// Sleeping until something comes.
    Idle,
    /// Writing what came before, or waiting a moment for more.
    #[default]
    Collecting,
    /// About to write at once.
    Called,
}

/// What waits for the thread, which never holds the lock while it writes.
#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines.
    lines: Vec<u8>,
    thread: Thread,
    reopen: bool,
    /// Who is told once all that came before is written.
    flushes: Vec<SyncSender<()>>,
    is_closed: bool,
}

impl Output {
    /// What is to be written to, and whether it has nothing yet.
    fn open(&self) -> io::Result<(Box<dyn Write + Send>, bool)> {
        match self {
            Self::Stderr => Ok((Box::new(io::stderr()), true)),
            Self::File(path) => {
                let mut options = OpenOptions::new();
                // Of a pipe that nobody reads the opening would wait for a reader.
                let flags = OFlags::NONBLOCK.bits().cast_signed();
                let file = options.append(true).create(true).custom_flags(flags).open(path)?;
                // The thread may wait for one that is slow; those who have lines do not.
                rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
                let is_empty = file.metadata()?.len() == 0;
                Ok((Box::new(file), is_empty))
            }
        }
    }
}

impl Shared {
    fn new(dropped: &Arc<AtomicU64>) -> Arc<Self> {
        let (waiting, news) = (Mutex::default(), Condvar::new());
        Arc::new(Self { waiting, news, dropped: Arc::clone(dropped) })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No change of it can panic half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, and wakes the thread where it has to know now.
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting();
        let before = waiting.thread;
        change(&mut waiting);
        if waiting.thread == Thread::Idle {
            waiting.thread = Thread::Collecting;
        }
        let is_news = waiting.thread != before;
        drop(waiting);
        // Each call of it is one of the kernel's, whether somebody waits or not.
        if is_news {
            self.news.notify_one();
        }
    }
}

impl Sink {
    /// Opens the output and starts the thread, which ends when the last sink is dropped and
    /// everything is written. Lines that are not written are counted there.
    pub(super) fn open(output: Output, dropped: &Arc<AtomicU64>) -> io::Result<Self> {
        let (file, _) = output.open()?;
        let shared = Shared::new(dropped);
        let writer = Writer::new(output, file, Arc::clone(&shared));
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Writes a line, with its end. It is dropped where too much waits already.
    pub(super) fn write(&self, line: &str, when: When) {
        let Handle(shared) = &*self.0;
        let (line, end) = if line.len() > MAX_LINE {
            let cut = (0..=MAX_LINE - 4).rev().find_map(|at| line.get(..at));
            (cut.unwrap_or_default(), "...\n")
        } else {
            (line, "")
        };
        shared.change(|waiting| {
            if waiting.lines.len() + line.len() + end.len() > MAX_WAITING {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.lines.extend_from_slice(line.as_bytes());
            waiting.lines.extend_from_slice(end.as_bytes());
            if when == When::Now || waiting.lines.len() >= BLOCK {
                waiting.thread = Thread::Called;
            }
        });
    }

    /// Opens the file anew, since the one of before was renamed: what is written from now on is in
    /// the new one.
    pub(super) fn reopen(&self) {
        self.0.0.change(|waiting| (waiting.reopen, waiting.thread) = (true, Thread::Called));
    }

    /// Waits until everything is written, for so long at most; false where it is not.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let (done, flushed) = sync_channel(1);
        self.0.0.change(|waiting| {
            waiting.flushes.push(done);
            waiting.thread = Thread::Called;
        });
        flushed.recv_timeout(patience).is_ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.change(|waiting| (waiting.is_closed, waiting.thread) = (true, Thread::Called));
    }
}

struct Writer {
    output: Output,
    file: Box<dyn Write + Send>,
    /// What is being written, in whole lines.
    buffer: Vec<u8>,
    /// Whether the last thing in the file is a part of a line.
    is_torn: bool,
    /// How often it was said that lines are lost.
    said: LogLimiter,
    shared: Arc<Shared>,
}

impl Writer {
    fn new(output: Output, file: Box<dyn Write + Send>, shared: Arc<Shared>) -> Self {
        let said = LogLimiter::default();
        Self { output, file, buffer: Vec::new(), is_torn: false, said, shared }
    }

    fn run(mut self) {
        loop {
            let Waiting { reopen, flushes, is_closed, .. } = self.take();
            // First: what came after it is not to be in what was put away.
            if reopen {
                self.reopen();
            }
            self.flush();
            for done in flushes {
                // Whoever waited may have left.
                let _ = done.try_send(());
            }
            if is_closed {
                return;
            }
        }
    }

    /// Waits until there is something to do, and takes it: the lines into the buffer.
    fn take(&mut self) -> Waiting {
        let mut waiting = self.shared.waiting();
        while waiting.lines.is_empty() && waiting.thread != Thread::Called {
            waiting.thread = Thread::Idle;
            waiting = self.shared.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let collects = |waiting: &mut Waiting| waiting.thread == Thread::Collecting;
        let news = &self.shared.news;
        let (mut waiting, _) = news
            .wait_timeout_while(waiting, COLLECTING, collects)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut self.buffer, &mut waiting.lines);
        let Waiting { reopen, is_closed, .. } = *waiting;
        let flushes = std::mem::take(&mut waiting.flushes);
        (waiting.reopen, waiting.thread) = (false, Thread::Collecting);
        Waiting { reopen, flushes, is_closed, ..Waiting::default() }
    }

    /// Writes what waits. What cannot be written is counted and forgotten: it would be tried again
    /// for ever.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.is_torn {
            self.buffer.insert(0, b'\n');
        }
        let mut written = 0;
        while let Some(rest) = self.buffer.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => break,
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.tell(&error);
                    break;
                }
            }
        }
        let (done, rest) = self.buffer.split_at(written.min(self.buffer.len()));
        self.is_torn = done.last().map_or(self.is_torn, |last| *last != b'\n');
        let lost = rest.split(|byte| *byte == b'\n').count() - 1;
        // Of what was begun anew the first end is that of the line before.
        let lost = lost - usize::from(done.is_empty() && self.is_torn && lost > 0);
        self.shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        self.buffer.clear();
    }

    /// Says now and then that lines are lost. Of standard error there is nobody to tell.
    fn tell(&mut self, error: &io::Error) {
        if let Output::File(path) = &self.output
            && self.said.count(Instant::now()).is_some()
        {
            let path = path.display();
            log::error!("cannot write the access log `{path}`, lines are lost: {error}");
        }
    }

    fn reopen(&mut self) {
        match self.output.open() {
            Ok((file, is_empty)) => {
                (self.file, self.is_torn) = (file, self.is_torn && !is_empty);
            }
            Err(error) => {
                let Output::File(path) = &self.output else { return };
                let path = path.display();
                log::error!(
                    "cannot open the access log `{path}` anew, lines go on into the file of \
                     before: {error}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_are_written_in_their_order_and_to_a_new_file_where_that_was_renamed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        std::fs::write(&path, "before\n").expect("written");
        let dropped = Arc::<AtomicU64>::default();
        let sink = Sink::open(Output::File(path.clone()), &dropped).expect("open");
        sink.write("one\n", When::Soon);
        sink.write("two\n", When::Now);
        assert!(sink.flush(PATIENCE));
        std::fs::rename(&path, &old).expect("renamed");
        sink.write("three\n", When::Soon);
        assert!(sink.flush(PATIENCE));
        sink.reopen();
        sink.write("four\n", When::Soon);
        assert!(sink.flush(PATIENCE));
        let read = |path| std::fs::read_to_string(path).expect("read");
        assert_eq!(read(&old), "before\none\ntwo\nthree\n");
        assert_eq!(read(&path), "four\n");
        // Where it cannot be opened any more it goes on in what is open.
        std::fs::remove_dir_all(directory.path()).expect("removed");
        sink.reopen();
        sink.write("five\n", When::Soon);
        assert!(sink.flush(PATIENCE));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_too_much_is_dropped_and_counted() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        let dropped = Arc::<AtomicU64>::default();
        let shared = Shared::new(&dropped);
        let thread = Writer::new(Output::Stderr, Box::new(writer), Arc::clone(&shared));
        let thread = std::thread::spawn(move || thread.run());
        let sink = Sink(Arc::new(Handle(shared)));
        // Nobody reads: what the socket takes, what may wait, and no more.
        let (line, count) = (format!("{}\u{e9}\n", "x".repeat(MAX_LINE)), 500);
        for _ in 0..count {
            sink.write(&line, When::Soon);
        }
        let dropped = || dropped.load(Ordering::Relaxed);
        assert!(dropped() > 0 && !sink.flush(Duration::from_millis(50)));
        let dropped = dropped();
        drop(sink);
        let all = io::read_to_string(reader).expect("text");
        thread.join().expect("no panic");
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len() as u64 + dropped, count);
        assert!(lines.iter().all(|line| line.len() < MAX_LINE && line.ends_with("x...")));
    }

    /// A disk that takes so many bytes, then nothing, and then all again.
    struct Full(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("no panic");
            let (written, room) = &mut *disk;
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..taken]);
            *room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fails_costs_the_lines_that_it_did_not_take() {
        let disk = Arc::new(Mutex::new((Vec::new(), 14)));
        let dropped = Arc::<AtomicU64>::default();
        let shared = Shared::new(&dropped);
        let full = Full(Arc::clone(&disk));
        let mut writer = Writer::new(Output::Stderr, Box::new(full), shared);
        let dropped = || dropped.load(Ordering::Relaxed);
        for number in 1..=5 {
            writer.buffer.extend_from_slice(format!("line {number}\n").as_bytes());
        }
        // Two lines of seven bytes fit.
        writer.flush();
        assert_eq!(dropped(), 3);
        disk.lock().expect("no panic").1 = 3;
        writer.buffer.extend_from_slice(b"line 6\nline 7\n");
        writer.flush();
        assert_eq!(dropped(), 5, "half a line is none");
        writer.buffer.extend_from_slice(b"line 8\n");
        writer.flush();
        assert_eq!(dropped(), 6);
        disk.lock().expect("no panic").1 = 1000;
        writer.buffer.extend_from_slice(b"line 9\n");
        writer.flush();
        assert_eq!(dropped(), 6);
        let text = String::from_utf8(disk.lock().expect("no panic").0.clone()).expect("text");
        assert_eq!(text, "line 1\nline 2\nlin\nline 9\n");
        let dropped = Arc::default();
        assert!(Sink::open(Output::File("/nowhere/at/all".into()), &dropped).is_err());
    }
}
