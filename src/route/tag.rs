//! Names that strangers see and must not see through: the entity tags of copies, and the choice of
//! a target.
//!
//! Both follow from the addresses of targets, of which there are few enough to try them all. They
//! are therefore made with a secret. SipHash-2-4 under a secret key of 128 bits is a pseudorandom
//! function: without the key its values tell nothing of what they were made from, not even to
//! somebody who knows all of it but one digit of an address.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::config::Key;
use crate::index::CopyId;

/// Makes the entity tags under which clients know copies. The same key and copy give the same tag,
/// so that a client can resume over a restart, and at another edge that has the same secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TagKey([u8; 16]);

impl TagKey {
    /// The key that belongs to a secret.
    pub fn of(secret: &Key) -> Self {
        Self(derived(secret, b"entity tags"))
    }

    /// The entity tag of a copy, as in an `etag` header: strong, in quotes.
    pub fn tag(&self, copy: CopyId) -> String {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&copy.to_bytes());
        format!("\"{:032x}\"", hasher.finish128().as_u128())
    }
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey")
    }
}

/// Decides which target a client is sent to, where several are as good.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ChoiceKey([u8; 16]);

impl ChoiceKey {
    /// The key that belongs to a secret.
    pub fn of(secret: &Key) -> Self {
        Self(derived(secret, b"choice of targets"))
    }

    /// The key of those who have no secret that lasts: clients meet their copies again after a
    /// restart, and who asks from hundreds of addresses can check a guess of a target's address.
    pub const fn known() -> Self {
        Self([0; 16])
    }

    pub(super) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ChoiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChoiceKey")
    }
}

/// The keys of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The key of entity tags.
    pub tags: TagKey,
    /// The key of the choice of a target.
    pub choice: ChoiceKey,
}

impl Keys {
    /// The keys that belong to a secret which is there after a restart.
    pub fn lasting(secret: &Key) -> Self {
        Self { tags: TagKey::of(secret), choice: ChoiceKey::of(secret) }
    }

    /// The keys of a secret which goes with the process. The choice of a target is not made with
    /// it: most clients that continue a download over a restart without a condition would be sent
    /// to another copy, of which nobody would know any more.
    pub fn passing(secret: &Key) -> Self {
        Self { tags: TagKey::of(secret), choice: ChoiceKey::known() }
    }
}

/// A key for one purpose, which tells nothing of those for others.
fn derived(secret: &Key, purpose: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(secret.expose());
    hasher.write(purpose);
    hasher.finish128().as_u128().to_be_bytes()
}

/// The key of this crate's tests.
#[cfg(test)]
pub(crate) const TEST_KEY: TagKey = TagKey([7; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(target: &str, length: u64) -> CopyId {
        CopyId::new(target, length, None)
    }

    #[test]
    fn tags_follow_from_copy_and_secret_alone() {
        let secret = Key::new([1; 16]);
        let id = copy("10.0.0.1:8899", 100);
        // Pinned: a client resumes with this across an upgrade.
        assert_eq!(TagKey::of(&secret).tag(id), "\"807f4f0b57cfc17da362915707c07bfa\"");
        let others = [
            TagKey::of(&Key::new([2; 16])).tag(id),
            TagKey::of(&secret).tag(copy("10.0.0.2:8899", 100)),
            TagKey::of(&secret).tag(copy("10.0.0.1:8899", 101)),
            id.to_string(),
        ];
        assert!(others.iter().all(|other| *other != TagKey::of(&secret).tag(id)));
    }

    #[test]
    fn keys_for_two_purposes_are_two_and_nothing_shows_them() {
        let secret = Key::new([1; 16]);
        let (tags, choice) = (TagKey::of(&secret), ChoiceKey::of(&secret));
        assert_ne!(tags.0, choice.0);
        assert_ne!(choice, ChoiceKey::known());
        assert_eq!(format!("{tags:?} {choice:?}"), "TagKey ChoiceKey");
    }
}
