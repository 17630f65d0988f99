//! Something that there is so much of, and so much for each client: whoever takes the
//! whole of his share waits for himself, and not others for him.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::route::ClientNet;

/// What there is. A client is known here for as long as it has something or waits for it.
pub(super) struct FairSemaphore {
    all: Arc<Semaphore>,
    each: u32,
    clients: Mutex<HashMap<ClientNet, Arc<Semaphore>>>,
}

/// What one client has, until it is dropped.
pub(super) struct Share {
    // Given back in this order: who is the last one of a client takes it off the list.
    _of_all: OwnedSemaphorePermit,
    _of_client: OwnedSemaphorePermit,
    _client: Client,
}

/// A client on the list.
struct Client {
    shares: Arc<FairSemaphore>,
    net: ClientNet,
    own: Arc<Semaphore>,
}

impl FairSemaphore {
    /// So much in all, and so much of it for each client.
    pub(super) fn new(all: u32, each: u32) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(all as usize));
        Arc::new(Self { all, each, clients: Mutex::default() })
    }

    /// Waits for `amount`, first among the client's own requests and then among all; a caller
    /// bounds the time. Nobody gets more than a client's whole share.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr, amount: u32) -> Option<Share> {
        let amount = amount.min(self.each);
        let client = self.client(ClientNet::of(address));
        let of_client = Arc::clone(&client.own).acquire_many_owned(amount).await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_many_owned(amount).await.ok()?;
        Some(Share { _of_all: of_all, _of_client: of_client, _client: client })
    }

    fn client(self: &Arc<Self>, net: ClientNet) -> Client {
        let mut clients = self.clients();
        let own = clients.entry(net);
        let own = own.or_insert_with(|| Arc::new(Semaphore::new(self.each as usize)));
        Client { shares: Arc::clone(self), net, own: Arc::clone(own) }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientNet, Arc<Semaphore>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut clients = self.shares.clients();
        // The list's and this one's: nobody else of this client is left.
        if Arc::strong_count(&self.own) <= 2 {
            clients.remove(&self.net);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::task::{Context, Poll, Waker};

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    /// A share that is there at once.
    fn now(shares: &Arc<FairSemaphore>, number: u8, amount: u32) -> Option<Share> {
        let mut take = std::pin::pin!(shares.take(client(number), amount));
        match take.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(share) => share,
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_client_has_its_share_and_all_have_theirs() {
        let shares = FairSemaphore::new(5, 2);
        let first = [now(&shares, 1, 1), now(&shares, 1, 1)];
        assert!(first.iter().all(Option::is_some));
        assert!(now(&shares, 1, 1).is_none());
        let second = now(&shares, 2, 2);
        assert!(second.is_some());
        assert!(now(&shares, 3, 2).is_none(), "there is but one left");
        let third = now(&shares, 3, 1);
        assert!(third.is_some());
        drop(first);
        assert!(now(&shares, 1, 2).is_some());
        // More than a share is a share.
        drop((second, third));
        let most = now(&shares, 4, 100);
        assert!(most.is_some() && now(&shares, 4, 1).is_none());
    }

    #[test]
    fn nobody_is_remembered_who_has_nothing() {
        let shares = FairSemaphore::new(5, 2);
        let held = now(&shares, 1, 1);
        drop((now(&shares, 1, 1), now(&shares, 1, 2), now(&shares, 2, 1), now(&shares, 3, 9)));
        assert_eq!(shares.clients().keys().collect::<Vec<_>>(), [&ClientNet::of(client(1))]);
        drop(held);
        assert!(shares.clients().is_empty());
        assert_eq!(shares.all.available_permits(), 5);
    }
}
