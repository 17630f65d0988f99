//! The `authorization` header of a group, and the file that it follows.

use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::AccessError;
use crate::config::{Credentials, Kept, Secret};

/// Time between two looks at the file of a secret.
const LOOK: Duration = Duration::from_secs(1);

/// The credentials as they are sent at the moment.
pub(super) struct Presented {
    credentials: Credentials,
    header: ArcSwap<HeaderValue>,
}

impl Presented {
    pub(super) fn new(credentials: Credentials) -> Result<Self, AccessError> {
        let header = header(&credentials, credentials.kept().first())?;
        Ok(Self { credentials, header: ArcSwap::from_pointee(header) })
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::clone(&self.header.load())
    }

    pub(super) fn changes(&self) -> bool {
        matches!(self.credentials.kept(), Kept::File { .. })
    }

    /// Reads the file again and again. What it held last, when it made sense, stays.
    pub(super) async fn keep(&self, group: &str) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = None;
        loop {
            ticks.tick().await;
            let credentials = self.credentials.clone();
            // A read that hangs (a dead network file system) holds a thread; there is no second.
            let read = tokio::task::spawn_blocking(move || credentials.read_again()).await;
            let failure = match read {
                Ok(Some(Ok(secret))) => self.take(group, &secret).err(),
                Ok(Some(Err(error))) => Some(error),
                Err(error) => Some(error.to_string()),
                Ok(None) => return std::future::pending().await,
            };
            match &failure {
                Some(failure) if failing.as_ref() != Some(failure) => {
                    log::warn!("group `{group}` keeps its credentials as they are: {failure}");
                }
                None if failing.is_some() => {
                    log::info!("the file of the credentials of group `{group}` is good again");
                }
                Some(_) | None => {}
            }
            failing = failure;
        }
    }

    /// Takes over what was read elsewhere; what cannot be sent changes nothing.
    pub(super) fn renew(&self, group: &str, secret: &Secret) {
        if let Err(error) = self.take(group, secret) {
            log::warn!("group `{group}` keeps its credentials as they are: {error}");
        }
    }

    fn take(&self, group: &str, secret: &Secret) -> Result<(), String> {
        let header = header(&self.credentials, secret).map_err(|error| error.to_string())?;
        if header != **self.header.load() {
            log::info!("group `{group}` has new credentials");
            self.header.store(header.into());
        }
        Ok(())
    }
}

fn header(credentials: &Credentials, secret: &Secret) -> Result<HeaderValue, AccessError> {
    let bytes = match credentials {
        Credentials::Basic { username, .. } => {
            let pair = [username.as_bytes(), b":", secret.expose()].concat();
            format!("Basic {}", STANDARD.encode(pair)).into_bytes()
        }
        Credentials::Bearer(_) => [b"Bearer ", secret.expose()].concat(),
    };
    let mut header = HeaderValue::from_bytes(&bytes).map_err(|_| AccessError::Header)?;
    // Whoever prints a head prints `Sensitive` for it.
    header.set_sensitive(true);
    Ok(header)
}
