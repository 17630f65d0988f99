//! The filling of the cache with an archive that is carried to a client.

use pingora::{Error, ErrorSource};

use crate::cache::{Abandoned, Claim, Reason};
use crate::route::Bypass;

/// What the cache has to do with a transfer.
pub(super) enum FillState {
    /// The cache is not filled, for this reason.
    Bypass(Bypass),
    /// The cache may be filled, once a source's answer was accepted.
    Claimed(Claim),
    /// The cache is being filled.
    Filling(Reason),
}

/// What the end of a transfer means for the fill that rode on it.
pub(super) fn ending(e: &Error) -> Abandoned {
    match e.esource() {
        ErrorSource::Upstream => Abandoned::SourceFailed,
        ErrorSource::Downstream => Abandoned::ClientLeft,
        ErrorSource::Internal | ErrorSource::Unset => Abandoned::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::ErrorType;

    #[test]
    fn a_fill_ends_by_whose_fault_its_transfer_did() {
        let error = || Error::new(ErrorType::ConnectionClosed);
        assert_eq!(ending(&error().into_up()), Abandoned::SourceFailed);
        assert_eq!(ending(&error().into_down()), Abandoned::ClientLeft);
        assert_eq!(ending(&error().into_in()), Abandoned::Ended);
        assert_eq!(ending(&error()), Abandoned::Ended);
    }
}
