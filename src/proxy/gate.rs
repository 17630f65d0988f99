//! Who may ask for what, and how often: by address, by rate, and by what is shown.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::HeaderMap;

use super::credentials::Credentials;
use super::visitor::Visitor;
use crate::config::{Config, OpenRoute};
use crate::metrics::RouteClass;
use crate::route::{CallRate, ClientNet, Failure};

/// What stands before every request.
pub(super) struct Gate {
    /// What each client asked lately.
    rate: Mutex<CallRate>,
    credentials: Credentials,
}

impl Gate {
    /// As it is configured.
    pub(super) fn new(config: &Config) -> Self {
        let gate = Self { rate: Mutex::new(CallRate::new(1)), credentials: Credentials::default() };
        gate.apply(config);
        gate
    }

    /// Goes on under another configuration.
    pub(super) fn apply(&self, config: &Config) {
        let rate = config.limits.requests.unwrap_or(u32::MAX);
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).set(rate);
    }

    /// Why a request for something of this class is not answered, if it is not.
    pub(super) async fn admit(
        &self,
        config: &Config,
        visitor: &Visitor,
        class: RouteClass,
        headers: &HeaderMap,
    ) -> Result<(), Failure> {
        if !is_admitted(config, visitor, class) {
            return Err(Failure::Denied);
        }
        if config.limits.requests.is_some() {
            self.charge(visitor)?;
        }
        match &config.auth {
            Some(auth) if !open_as(class).is_some_and(|open| auth.open.contains(&open)) => {
                self.credentials.check(auth, headers, visitor.client).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a request of a client.
    fn charge(&self, visitor: &Visitor) -> Result<(), Failure> {
        let client = ClientNet::of(visitor.client);
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(client, 1, Instant::now()).map_err(Failure::Requests)
    }
}

fn is_admitted(config: &Config, visitor: &Visitor, class: RouteClass) -> bool {
    let lists = &config.access;
    let of_class = match class {
        RouteClass::Archive | RouteClass::ShortForm => lists.archives.admits(visitor.client),
        RouteClass::Rpc => lists.rpc.admits(visitor.client),
        RouteClass::Api | RouteClass::Health | RouteClass::Other => true,
    };
    of_class && lists.all.admits(visitor.client)
}

/// The word by which a configuration opens a class of requests to everybody.
fn open_as(class: RouteClass) -> Option<OpenRoute> {
    match class {
        RouteClass::ShortForm => Some(OpenRoute::ShortForms),
        RouteClass::Health => Some(OpenRoute::Health),
        RouteClass::Api => Some(OpenRoute::Json),
        RouteClass::Archive | RouteClass::Rpc | RouteClass::Other => None,
    }
}
