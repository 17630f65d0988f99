//! The bytes of one archive on their way to the disk: `Fill`, and the thread behind it.
//!
//! A fill that is dropped is undone by its thread, soon after.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot, watch};

use super::abandoned::{Abandoned, Stopped, WhenSuperseded, disk};
use super::growing::Growing;
use super::inspection::{Finding, Inspection};
use super::progress::{End, Progress};
use super::record::Record;
use super::reservation::{Refusal, Reservation};
use super::shared::{Sealing, Shared};
use crate::snapshot::ArchiveName;

/// Bytes that are written at once.
const BLOCK: usize = 1 << 20;
/// Blocks that wait for the disk. With the one that is collected and the one that is written this
/// is all the memory that a fill needs.
const QUEUE: usize = 8;

/// What the writer of a fill is sent.
enum Step {
    Write(Bytes),
    /// The archive is complete. What this carries is kept until it is found or given up.
    Seal(Sealing),
    /// The fill was revoked.
    Stop,
}

/// Where those who end a fill say why. The first reason stays.
#[derive(Clone, Debug)]
pub struct Reason {
    given: Arc<OnceLock<Abandoned>>,
    steps: mpsc::WeakSender<Step>,
}

impl Reason {
    /// Gives the reason, where there is none yet.
    pub fn give(&self, why: Abandoned) {
        // A later reason follows from the first one.
        let _ = self.given.set(why);
    }

    /// Ends the fill for another client, although nothing may be sent any more by which it would be
    /// seen.
    pub fn revoke(&self, why: Abandoned) {
        self.give(why);
        if let Some(steps) = self.steps.upgrade() {
            // Where the queue is full, the writer looks for the reason by itself.
            let _ = steps.try_send(Step::Stop);
        }
    }

    /// What was given.
    pub fn given(&self) -> Option<Abandoned> {
        self.given.get().copied()
    }
}

/// An archive on its way to the disk. Dropping it without [`Fill::finish`] abandons it.
#[derive(Debug)]
pub struct Fill {
    steps: mpsc::Sender<Step>,
    block: BytesMut,
    written: u64,
    length: u64,
    reason: Reason,
    shared: Arc<Shared>,
}

/// How a fill ended, once its thread is done with it and its name is free.
#[derive(Debug)]
pub struct Ending(oneshot::Receiver<Result<(), Abandoned>>);

impl Ending {
    /// Waits for it.
    pub async fn wait(&mut self) -> Result<(), Abandoned> {
        // A thread that ended without a word has panicked.
        (&mut self.0).await.unwrap_or(Err(Abandoned::Ended))
    }
}

impl Fill {
    /// Starts the thread that writes what a client gets as well.
    pub fn begin(reservation: Reservation) -> Result<Self, Refusal> {
        let (progress, _) = watch::channel(Progress::new(Instant::now()));
        Self::start(reservation, progress, WhenSuperseded::End).map(|(fill, _)| fill)
    }

    /// Starts the thread that writes an archive which others read as it grows; `ranges` is whether
    /// its source answers them. Blocks for a moment.
    pub fn begin_shared(
        reservation: Reservation,
        ranges: bool,
    ) -> Result<(Self, Arc<Growing>, Ending), Refusal> {
        let (progress, watched) = watch::channel(Progress::new(Instant::now()));
        let growing = Arc::new(reservation.growing(ranges, watched).map_err(Refusal::Disk)?);
        reservation.show(&growing);
        let (fill, ending) = Self::start(reservation, progress, WhenSuperseded::GoOn)?;
        Ok((fill, growing, ending))
    }

    fn start(
        reservation: Reservation,
        progress: watch::Sender<Progress>,
        superseded: WhenSuperseded,
    ) -> Result<(Self, Ending), Refusal> {
        let (steps, inbox) = mpsc::channel(QUEUE);
        let (done, ending) = oneshot::channel();
        let reason = Reason { given: Arc::default(), steps: steps.downgrade() };
        let length = reservation.record().length;
        let Record { name, target, .. } = reservation.record();
        log::info!("cache: refresh of {name} from target {target} started, {length} bytes");
        let inspection = reservation.inspection().map_err(Refusal::Disk)?;
        let shared = reservation.shared();
        shared.measure(&reservation.record().name, progress.subscribe());
        let writer = Writer {
            reservation,
            inspection,
            inbox,
            progress,
            superseded,
            reason: reason.clone(),
            began: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("cache fill".to_owned());
        let run = || {
            // Whoever does not want to know has gone.
            let _ = done.send(writer.run());
        };
        thread.spawn(run).map_err(Refusal::Thread)?;
        shared.counts.begin();
        let fill = Self { steps, block: BytesMut::new(), written: 0, length, reason, shared };
        Ok((fill, Ending(ending)))
    }

    /// Where to say why it ends early.
    pub fn reason(&self) -> Reason {
        self.reason.clone()
    }

    /// Bytes of the whole archive.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that were taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that were taken and not yet sent on to the disk.
    pub fn collected(&self) -> usize {
        self.block.len()
    }

    /// Takes the next bytes, and waits for the disk where too many wait already. After an error, or
    /// when it was not waited for, there is nothing more to do but to drop the fill.
    pub async fn write(&mut self, data: impl AsRef<[u8]>) -> Result<(), Abandoned> {
        let mut data = data.as_ref();
        self.written += data.len() as u64;
        if self.written > self.length {
            return Err(self.abandon(Abandoned::Length));
        }
        while !data.is_empty() {
            // Copied, since the pieces of a network's buffer keep all of that buffer alive.
            let (piece, rest) = data.split_at(data.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(piece);
            data = rest;
            if self.block.len() == BLOCK {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends what was collected on to the disk, although it is less than a block.
    pub async fn flush(&mut self) -> Result<(), Abandoned> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, BytesMut::with_capacity(BLOCK));
        self.send(Step::Write(block.freeze())).await
    }

    /// The body is complete: the archive is sealed in the writer's thread, and found from then on.
    /// Nobody waits for that, least of all the client, whose last bytes are still to be sent.
    pub async fn finish(mut self) -> Result<(), Abandoned> {
        if self.written != self.length {
            return Err(self.abandon(Abandoned::Length));
        }
        let sealing = self.shared.sealing();
        self.flush().await?;
        self.send(Step::Seal(sealing)).await
    }

    async fn send(&self, step: Step) -> Result<(), Abandoned> {
        // A writer that has gone has said why.
        self.steps.send(step).await.map_err(|_| self.abandon(Abandoned::Disk))
    }

    fn abandon(&self, why: Abandoned) -> Abandoned {
        self.reason.give(why);
        self.reason.given().unwrap_or(why)
    }
}

/// The thread behind a [`Fill`]. It ends with the archive sealed or with nothing left of it.
struct Writer {
    reservation: Reservation,
    inspection: Inspection,
    inbox: mpsc::Receiver<Step>,
    progress: watch::Sender<Progress>,
    superseded: WhenSuperseded,
    reason: Reason,
    began: Instant,
}

impl Writer {
    fn run(mut self) -> Result<(), Abandoned> {
        let mut written = 0;
        let complete = self.write_all(&mut written);
        if let Err((why, _)) = &complete {
            // What the client's side noticed is the cause of what is noticed here.
            self.reason.give(*why);
        }
        // Nobody is to wait for a queue that is not emptied any more.
        self.inbox.close();
        let Self { reservation, inspection, progress, superseded, reason, began, .. } = self;
        let Record { name, target, .. } = reservation.record().clone();
        let shared = reservation.shared();
        let (outcome, _sealing) = match complete {
            Ok(sealing) => (reservation.seal(superseded), Some(sealing)),
            Err((why, error)) => {
                let why = reason.given().unwrap_or(why);
                // Before the file goes: no reader is to wait for that.
                progress.send_modify(|progress| progress.finish(End::Failed(why)));
                drop(inspection);
                drop(reservation);
                (Err((why, error)), None)
            }
        };
        report(outcome.as_ref().err(), name, written, began);
        shared.counts.end(name, &target, written, outcome.as_ref().err().map(|(why, _)| *why));
        match outcome {
            Ok((sealed, shared)) => {
                progress.send_modify(|progress| progress.finish(End::Whole(sealed)));
                shared.settle();
                Ok(())
            }
            Err((why, _)) => {
                progress.send_modify(|progress| progress.finish(End::Failed(why)));
                Err(why)
            }
        }
    }

    /// Writes what comes, and shows it to readers; the last of it only once the archive was found
    /// sound, so that nobody gets all of one that is not.
    fn write_all(&mut self, written: &mut u64) -> Result<Sealing, Stopped> {
        let length = self.reservation.record().length;
        while let Some(step) = self.inbox.blocking_recv() {
            if let Some(why @ Abandoned::Overtaken) = self.reason.given() {
                return Err((why, None));
            }
            let block = match step {
                Step::Write(block) => block,
                Step::Stop => break,
                Step::Seal(sealing) => {
                    self.inspection.finish().map_err(|found| self.unsound(found))?;
                    self.advance(length);
                    return Ok(sealing);
                }
            };
            if self.superseded == WhenSuperseded::End {
                self.reservation.check_worth()?;
            }
            self.inspection.pass(&block).map_err(|found| self.unsound(found))?;
            self.reservation.write(&block)?;
            *written += block.len() as u64;
            self.inspection.written(*written).map_err(|found| self.unsound(found))?;
            if *written < length {
                self.advance(*written);
            }
            if self.superseded == WhenSuperseded::GoOn {
                self.inspection.keep_up();
            }
        }
        Err((Abandoned::Ended, None))
    }

    fn unsound(&self, found: Finding) -> Stopped {
        match found {
            Finding::Flaw(flaw) => {
                self.reservation.distrust_source(flaw);
                (Abandoned::Unsound(flaw), None)
            }
            Finding::Failed(error) => disk(error),
        }
    }

    fn advance(&self, frontier: u64) {
        self.progress.send_modify(|progress| progress.advance(frontier, Instant::now()));
    }
}

/// One line for the end of a refresh.
fn report(stopped: Option<&Stopped>, name: ArchiveName, written: u64, began: Instant) {
    match stopped {
        None => {
            let took = began.elapsed();
            let rate = u128::from(written) / 1000 / took.as_millis().max(1);
            let seconds = took.as_secs_f64();
            log::info!("cache: promoted {name}, {written} bytes, {seconds:.3} s, {rate} MB/s");
        }
        Some((why, error)) => {
            let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            log::info!("cache: refresh of {name} abandoned after {written} bytes: {why}{error}");
        }
    }
}
