//! The archive cache: the best archives of the moment, on disk, each of them complete or not there.
//!
//! The store knows nothing of HTTP and nothing of Pingora; `storage.rs` is the thin adapter that
//! makes it a storage backend of Pingora's cache. Which archive is worth keeping is the index's
//! decision, and which request may fill or read is that of `route/plan/cache.rs`.
//!
//! # The directory
//!
//! | file | what |
//! |---|---|
//! | `snapedge.lock` | empty; locked by the process that uses the directory |
//! | `snapedge.secret` | what entity tags are made with |
//! | `<name>` | a complete archive, never written or truncated again |
//! | `<name>.snapedge` | its record, see [`Record`]; without one an archive is not ours |
//! | `<name>.snapedge-part` | an archive that is being fetched |
//! | `<name>.snapedge-new` | a record that is being written |
//!
//! where `<name>` is the name of an archive. Everything else is left alone.
//!
//! An archive comes into being in this order: room is reserved and the body is written under the
//! unfinished name; its length is checked and the file synced; the record is written, synced, and
//! renamed, and the directory synced; the archive is renamed, in place of nothing, and the
//! directory synced; then it is found. It goes in the opposite order: it is no longer found, the
//! archive is unlinked, the directory synced, then the record is unlinked. So at every instant a
//! file under an archive's name that has a record is complete, and what a crash leaves behind is
//! known as ours by its name or its record.
//!
//! While an archive is fetched it can be read, where its fill is shared: its readers get what is
//! written and wait for the rest, and switch to the complete one when that is there.
//!
//! What is read out of somebody else's file ([`Lent`]) goes the same way to the client, and never
//! into the store.
//!
//! # What it leaves out
//!
//! It fetches nothing, it follows no symbolic links, and it keeps nothing in memory of an archive
//! but its mapping.

mod abandoned;
mod archive;
mod counts;
mod fill;
mod growing;
mod inspection;
mod intact;
mod layout;
mod lent;
mod mapping;
mod options;
mod piece;
mod progress;
mod record;
mod report;
mod reservation;
mod retention;
mod scan;
mod sealed;
mod secret;
mod shared;
mod space;
mod storage;
mod store;

#[cfg(test)]
mod tests;

pub use abandoned::Abandoned;
pub use archive::{Archive, Reader};
pub use counts::{FillCounts, FillEnd};
pub use fill::{Ending, Fill, Reason};
pub use growing::Growing;
pub use lent::{Lent, LentReader};
pub use options::{Appraise, Options, StoreSettings, Successor};
pub use progress::{End, Progress};
pub use record::{Record, RecordError};
pub use report::{Contents, FillState, WholeArchive};
pub use reservation::{Announced, Claim, Refusal, Reservation};
pub use retention::Retention;
pub use sealed::{SLICE, Sealed, SealedReader};
pub use secret::{SecretError, random_secret};
pub use storage::{ArchiveStorage, FillCell, LentStorage};
pub use store::{OpenError, Standing, Store};
