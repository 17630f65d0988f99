//! Who may ask, by address.

use std::net::IpAddr;

use super::networks::Networks;

/// Networks that may ask, and such that may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// Networks that may; all where unset.
    pub allow: Option<Networks>,
    /// Networks that may not, although they are among the others.
    pub deny: Networks,
}

impl AccessList {
    /// Whether a client may ask.
    pub fn admits(&self, client: IpAddr) -> bool {
        let is_allowed = self.allow.as_ref().is_none_or(|networks| networks.contain(client));
        is_allowed && !self.deny.contain(client)
    }
}

/// Who may ask for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLists {
    /// For anything at all.
    pub all: AccessList,
    /// For archives, and for the short forms that lead to them.
    pub archives: AccessList,
    /// For what only a node can answer.
    pub rpc: AccessList,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_is_so_wherever_else_it_is() {
        let set = |text: &str| Networks::read(&text.replace(' ', "\n")).expect("networks");
        let check = |allow: Option<&str>, deny: &str, client: &str, expected: bool| {
            let list = AccessList { allow: allow.map(set), deny: set(deny) };
            let admitted = list.admits(client.parse().expect("an address"));
            assert_eq!(admitted, expected, "{allow:?} {deny} {client}");
        };
        check(None, "", "192.0.2.1", true);
        check(None, "192.0.2.0/24", "192.0.2.1", false);
        check(None, "192.0.2.0/24", "192.0.3.1", true);
        check(Some("10.0.0.0/8"), "", "10.1.1.1", true);
        check(Some("10.0.0.0/8"), "", "192.0.2.1", false);
        check(Some("10.0.0.0/8"), "", "2001:db8::1", false);
        check(Some("10.0.0.0/8"), "10.1.0.0/16", "10.1.1.1", false);
        check(Some(""), "", "10.1.1.1", false);
    }
}
