//! How a refresh ends that does not end in an archive.

use std::io;

use crate::check::Flaw;

/// Why a refresh that had begun does not end in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abandoned {
    /// Nobody takes the bytes any more.
    #[error("the client left")]
    ClientLeft,
    /// The source broke off or fell silent.
    #[error("the source failed")]
    SourceFailed,
    /// The source takes too long for the size of it, while others wait to be fetched.
    #[error("it takes too long for its size, and others wait to be fetched")]
    Late,
    /// The transfer ended in some other way.
    #[error("the transfer ended")]
    Ended,
    /// More or fewer bytes than were announced.
    #[error("the body has another length than was announced")]
    Length,
    /// Another archive is the best one by now.
    #[error("it is no longer the best")]
    NotBest,
    /// The bytes are no archive of that name.
    #[error("the archive is not sound: {0}")]
    Unsound(Flaw),
    /// The disk takes the bytes slower than the client.
    #[error("the disk is slower than the client")]
    Slow,
    /// The client takes too little of it, while another one waits for it.
    #[error("its client is slow, and another one came for it")]
    Overtaken,
    /// The disk refused the bytes.
    #[error("the disk fails")]
    Disk,
}

impl Abandoned {
    /// Every cause, for those who count.
    pub const CAUSES: [&str; 10] = [
        "client_left",
        "source_failed",
        "late",
        "ended",
        "length",
        "not_best",
        "unsound",
        "slow",
        "overtaken",
        "disk",
    ];

    /// Which of these it is.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::SourceFailed => "source_failed",
            Self::Late => "late",
            Self::Ended => "ended",
            Self::Length => "length",
            Self::NotBest => "not_best",
            Self::Unsound(_) => "unsound",
            Self::Slow => "slow",
            Self::Overtaken => "overtaken",
            Self::Disk => "disk",
        }
    }
}

/// What becomes of a fill whose archive is no longer the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenSuperseded {
    /// The fill ends. The client that it rides on goes on without it.
    End,
    /// The fill goes on: its readers have no other source of these bytes.
    GoOn,
}

/// Why there is no archive at the end, and what the system said where it was the system's fault.
pub(super) type Stopped = (Abandoned, Option<io::Error>);

pub(super) fn disk(error: impl Into<io::Error>) -> Stopped {
    (Abandoned::Disk, Some(error.into()))
}
