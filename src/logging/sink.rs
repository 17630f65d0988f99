//! A file, or standard error, that lines are written to by a thread of its own: who has a line to
//! write never waits for the disk, or for whoever reads the pipe.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::limit::LogLimiter;

/// Most lines that wait to be written. Of more, the new ones are dropped and counted.
const QUEUE: usize = 4096;
/// Most bytes of one line; what is longer is cut.
pub(super) const MAX_LINE: usize = 16 << 10;
/// Bytes that are written at once, where so many wait.
const BLOCK: usize = 32 << 10;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Standard error of the process.
    Stderr,
    /// A file, at the end of what it holds.
    File(PathBuf),
}

/// The way to a thread that writes lines. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    steps: SyncSender<Step>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dropped: Arc<AtomicU64>,
    reopen: AtomicBool,
}

enum Step {
    Line(String),
    /// The flag says what is to be done.
    Wake,
    /// All lines before this are to be written; the sender is told when they are.
    Flush(SyncSender<()>),
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

impl Sink {
    /// Opens the output and starts the thread, which ends when the last sink is dropped and
    /// everything is written. Lines that are not written are counted there.
    pub(super) fn open(output: Output, dropped: &Arc<AtomicU64>) -> io::Result<Self> {
        let (file, _) = output.open()?;
        let (steps, inbox) = sync_channel(QUEUE);
        let (dropped, reopen) = (Arc::clone(dropped), AtomicBool::new(false));
        let shared = Arc::new(Shared { dropped, reopen });
        let writer = Writer::new(output, file, Arc::clone(&shared));
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self { steps, shared })
    }

    /// Writes a line, with its end, soon. It is dropped where too many wait already.
    pub(super) fn write(&self, mut line: String) {
        if line.len() > MAX_LINE {
            let cut = (0..=MAX_LINE - 4).rev().find(|at| line.is_char_boundary(*at));
            line.truncate(cut.unwrap_or(0));
            line.push_str("...\n");
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.steps.try_send(Step::Line(line))
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, since the one of before was renamed: what is written from now on is in
    /// the new one.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Where the queue is full, the thread sees the flag at the next line.
        let _ = self.steps.try_send(Step::Wake);
    }

    /// Waits until everything is written, for so long at most; false where it is not.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let (done, flushed) = sync_channel(1);
        self.steps.try_send(Step::Flush(done)).is_ok() && flushed.recv_timeout(patience).is_ok()
    }
}

struct Writer {
    output: Output,
    file: Box<dyn Write + Send>,
    /// What is to be written, in whole lines.
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

    fn run(mut self, inbox: &Receiver<Step>) {
        loop {
            let step = match inbox.try_recv() {
                Ok(step) => step,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.flush();
                    let Ok(step) = inbox.recv() else { break };
                    step
                }
            };
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            match step {
                Step::Line(line) => self.write(&line),
                Step::Wake => {}
                Step::Flush(done) => {
                    self.flush();
                    // Whoever waited may have left.
                    let _ = done.try_send(());
                }
            }
        }
        self.flush();
    }

    fn write(&mut self, line: &str) {
        self.buffer.extend_from_slice(line.as_bytes());
        if self.buffer.len() >= BLOCK {
            self.flush();
        }
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
        self.flush();
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
        sink.write("one\n".to_owned());
        sink.write("two\n".to_owned());
        assert!(sink.flush(PATIENCE));
        std::fs::rename(&path, &old).expect("renamed");
        sink.write("three\n".to_owned());
        assert!(sink.flush(PATIENCE));
        sink.reopen();
        sink.write("four\n".to_owned());
        assert!(sink.flush(PATIENCE));
        let read = |path| std::fs::read_to_string(path).expect("read");
        assert_eq!(read(&old), "before\none\ntwo\nthree\n");
        assert_eq!(read(&path), "four\n");
        // Where it cannot be opened any more it goes on in what is open.
        std::fs::remove_dir_all(directory.path()).expect("removed");
        sink.reopen();
        sink.write("five\n".to_owned());
        assert!(sink.flush(PATIENCE));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_too_much_is_dropped_and_counted() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        let (steps, inbox) = sync_channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let reopen = AtomicBool::new(false);
        let shared = Arc::new(Shared { dropped: Arc::clone(&dropped), reopen });
        let thread = Writer::new(Output::Stderr, Box::new(writer), Arc::clone(&shared));
        let thread = std::thread::spawn(move || thread.run(&inbox));
        let sink = Sink { steps, shared };
        // Nobody reads: what the socket takes, the queue, and no more.
        let line = format!("{}\u{e9}\n", "x".repeat(MAX_LINE));
        for _ in 0..2 * QUEUE {
            sink.write(line.clone());
        }
        let dropped = || dropped.load(Ordering::Relaxed);
        assert!(dropped() > 0 && !sink.flush(Duration::from_millis(50)));
        let dropped = dropped();
        drop(sink);
        let all = io::read_to_string(reader).expect("text");
        thread.join().expect("no panic");
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len() as u64 + dropped, 2 * QUEUE as u64);
        assert!(lines.iter().all(|line| line.len() < MAX_LINE && line.ends_with("x...")));
    }

    /// A disk that takes so many bytes, then nothing, and then all again.
    struct Full(Arc<std::sync::Mutex<(Vec<u8>, usize)>>);

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
        let disk = Arc::new(std::sync::Mutex::new((Vec::new(), 14)));
        let dropped = Arc::<AtomicU64>::default();
        let reopen = AtomicBool::new(false);
        let shared = Arc::new(Shared { dropped: Arc::clone(&dropped), reopen });
        let full = Full(Arc::clone(&disk));
        let mut writer = Writer::new(Output::Stderr, Box::new(full), shared);
        let dropped = || dropped.load(Ordering::Relaxed);
        for number in 1..=5 {
            writer.write(&format!("line {number}\n"));
        }
        // Two lines of seven bytes fit.
        writer.flush();
        assert_eq!(dropped(), 3);
        disk.lock().expect("no panic").1 = 3;
        writer.write("line 6\nline 7\n");
        writer.flush();
        assert_eq!(dropped(), 5, "half a line is none");
        writer.write("line 8\n");
        writer.flush();
        assert_eq!(dropped(), 6);
        disk.lock().expect("no panic").1 = 1000;
        writer.write("line 9\n");
        writer.flush();
        assert_eq!(dropped(), 6);
        let text = String::from_utf8(disk.lock().expect("no panic").0.clone()).expect("text");
        assert_eq!(text, "line 1\nline 2\nlin\nline 9\n");
        let dropped = Arc::default();
        assert!(Sink::open(Output::File("/nowhere/at/all".into()), &dropped).is_err());
    }
}
