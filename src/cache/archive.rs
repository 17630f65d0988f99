//! An archive that can be read, complete, on its way, or somebody else's, and a reader of it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::growing::{Follower, Growing, Next};
use super::lent::{Lent, LentReader};
use super::record::Record;
use super::sealed::{Sealed, SealedReader};

/// An archive that can be read.
#[derive(Clone, Debug)]
pub enum Archive {
    /// A whole archive.
    Whole(Arc<Sealed>),
    /// An archive that is being fetched; its readers wait for what is not there yet.
    Growing(Arc<Growing>),
    /// An archive in a file that the store has nothing to do with.
    Lent(Arc<Lent>),
}

impl Archive {
    /// What is known of it. The time when it was complete is that of a complete one only.
    pub fn record(&self) -> &Record {
        match self {
            Self::Whole(sealed) => sealed.record(),
            Self::Growing(growing) => growing.record(),
            Self::Lent(lent) => lent.record(),
        }
    }

    /// A reader of all of it.
    pub fn reader(&self) -> Reader {
        match self {
            Self::Whole(sealed) => Reader::Whole(sealed.reader()),
            Self::Growing(growing) => Reader::Growing(growing.follow()),
            Self::Lent(lent) => Reader::Lent(lent.reader()),
        }
    }
}

/// A reader of some bytes of an archive.
#[derive(Debug)]
pub enum Reader {
    /// Of one that is complete.
    Whole(SealedReader),
    /// Of one that is being fetched. When that is done, the rest is read from the complete one.
    Growing(Follower),
    /// Of one in somebody else's file.
    Lent(LentReader),
}

impl Reader {
    /// Goes to these bytes; what is behind the end of the archive is left out.
    pub fn seek(&mut self, start: usize, end: usize) {
        match self {
            Self::Whole(reader) => reader.seek(start, end),
            Self::Growing(follower) => follower.seek(start as u64, end as u64),
            Self::Lent(reader) => reader.seek(start as u64, end as u64),
        }
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let follower = match self {
                Self::Whole(reader) => return reader.next().await,
                Self::Lent(reader) => return reader.next().await,
                Self::Growing(follower) => follower,
            };
            match follower.next().await? {
                Next::Piece(piece) => return Ok(Some(piece)),
                Next::End => return Ok(None),
                Next::Whole(sealed, rest) => {
                    let mut reader = sealed.reader();
                    let place = |position| usize::try_from(position).unwrap_or(usize::MAX);
                    reader.seek(place(rest.start), place(rest.end));
                    *self = Self::Whole(reader);
                }
            }
        }
    }

    /// The complete archive of the store that is read, where it is one.
    pub fn sealed(&self) -> Option<&Arc<Sealed>> {
        match self {
            Self::Whole(reader) => Some(reader.sealed()),
            Self::Growing(_) | Self::Lent(_) => None,
        }
    }
}
