//! A file, or standard error, that lines are written to by a thread of its own: who has a line to
//! write never waits for the disk, or for whoever reads the pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

/// Most lines that wait to be written. Of more, the new ones are dropped and counted.
const QUEUE: usize = 4096;
/// Most bytes of one line; what is longer is cut.
const MAX_LINE: usize = 16 << 10;

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

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
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
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        match self {
            Self::Stderr => Ok(Box::new(io::stderr())),
            Self::File(path) => {
                let file: File = OpenOptions::new().append(true).create(true).open(path)?;
                Ok(Box::new(file))
            }
        }
    }
}

impl Sink {
    /// Opens the output and starts the thread, which ends when the last sink is dropped and
    /// everything is written.
    pub(super) fn open(output: Output) -> io::Result<Self> {
        let file = output.open()?;
        let (steps, inbox) = sync_channel(QUEUE);
        let shared = Arc::<Shared>::default();
        let writer = Writer { output, file: BufWriter::new(file), shared: Arc::clone(&shared) };
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

    /// Lines that were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

struct Writer {
    output: Output,
    file: BufWriter<Box<dyn Write + Send>>,
    shared: Arc<Shared>,
}

impl Writer {
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
        if self.file.write_all(line.as_bytes()).is_err() {
            self.lost(1);
        }
    }

    fn flush(&mut self) {
        if self.file.flush().is_err() {
            self.lost(1);
        }
    }

    /// Counts what could not be written, and forgets it: it would be tried again for ever.
    fn lost(&mut self, lines: u64) {
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
        let empty: Box<dyn Write + Send> = Box::new(io::sink());
        let full = std::mem::replace(&mut self.file, BufWriter::new(empty));
        let (file, _unwritten) = full.into_parts();
        self.file = BufWriter::new(file);
    }

    fn reopen(&mut self) {
        self.flush();
        match self.output.open() {
            Ok(file) => self.file = BufWriter::new(file),
            Err(error) => {
                // It goes on in the file of before.
                log::error!("cannot open the access log anew, it stays as it is: {error}");
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
        let sink = Sink::open(Output::File(path.clone())).expect("open");
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
        assert_eq!(sink.dropped(), 0);
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_too_much_is_dropped_and_counted() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        let (steps, inbox) = sync_channel(QUEUE);
        let shared = Arc::<Shared>::default();
        let file: Box<dyn Write + Send> = Box::new(writer);
        let thread = Writer {
            output: Output::Stderr,
            file: BufWriter::new(file),
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::spawn(move || thread.run(&inbox));
        let sink = Sink { steps, shared };
        // Nobody reads: what the socket takes, the queue, and no more.
        let line = format!("{}\u{e9}\n", "x".repeat(MAX_LINE));
        for _ in 0..2 * QUEUE {
            sink.write(line.clone());
        }
        assert!(sink.dropped() > 0 && !sink.flush(Duration::from_millis(50)));
        let dropped = sink.dropped();
        drop(sink);
        let all = io::read_to_string(reader).expect("text");
        thread.join().expect("no panic");
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len() as u64 + dropped, 2 * QUEUE as u64);
        assert!(lines.iter().all(|line| line.len() < MAX_LINE && line.ends_with("x...")));
    }

    #[test]
    fn a_disk_that_fails_costs_the_lines_that_it_failed() {
        let Ok(sink) = Sink::open(Output::File("/dev/full".into())) else { return };
        sink.write("lost\n".to_owned());
        assert!(sink.flush(PATIENCE));
        assert_eq!(sink.dropped(), 1);
        assert!(Sink::open(Output::File("/nowhere/at/all".into())).is_err());
    }
}
