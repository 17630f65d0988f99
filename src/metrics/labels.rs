//! Values of labels, each a closed set: no client can add one. Pure.

use http::Method;

/// A closed set of values of a label.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$of])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value as metrics and the log show it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)*
                }
            }
        }
    };
}

label! {
    /// What kind of thing a request asks for.
    RouteClass {
        /// The best archive, by its short name.
        ShortForm = "short_form",
        /// One archive, by its own name.
        Archive = "archive",
        /// The tracker API.
        Api = "api",
        /// How the edge or a node is.
        Health = "health",
        /// What only a node can answer.
        Rpc = "rpc",
        /// Nothing that is served.
        Other = "other",
    }
}

label! {
    /// A request's method, or what others are counted as.
    MethodClass {
        /// GET.
        Get = "get",
        /// HEAD.
        Head = "head",
        /// POST.
        Post = "post",
        /// Any other one.
        Other = "other",
    }
}

label! {
    /// What the cache had to do with an answer.
    CacheResult {
        /// The answer is no archive.
        None = "none",
        /// Bytes out of the cache.
        Hit = "hit",
        /// Bytes out of a local directory.
        Lent = "lent",
        /// Bytes from a target, that went into the cache on the way.
        Stored = "stored",
        /// Bytes out of the fill that is under way.
        Collapsed = "collapsed",
        /// Bytes from a target, past the cache.
        Bypass = "bypass",
    }
}

label! {
    /// Where the bytes of an archive come from.
    SourceClass {
        /// A target.
        Target = "target",
        /// The cache, of a whole archive or of one that grows.
        Cache = "cache",
        /// A local directory.
        Ledger = "ledger",
    }
}

label! {
    /// How a request ended.
    End {
        /// All of the answer went out.
        Done = "done",
        /// The client left before that.
        ClientLeft = "client_left",
        /// The client took too little, and was left.
        ClientSlow = "client_slow",
        /// No target delivered the archive, or one broke off.
        SourceFailed = "source_failed",
        /// A bound was reached.
        Refused = "refused",
        /// Others waited for its place, and its client took too little or had more than its share.
        Dismissed = "dismissed",
        /// The process ended.
        Stopped = "stopped",
        /// A fault of this program.
        Internal = "internal",
    }
}

label! {
    /// A bound that requests and connections are refused for, after the key that sets it.
    LimitName {
        /// Transfers to clients.
        Transfers = "max_transfers",
        /// Transfers to one client.
        ClientTransfers = "per_client_transfers",
        /// Bytes per second to clients.
        Rate = "total_rate",
        /// Transfers from a target, for every target that would do.
        Targets = "per_target",
        /// Connections of all clients.
        Connections = "max_connections",
        /// Connections of one client.
        ClientConnections = "per_client_connections",
        /// Bytes of the heads of all requests.
        Heads = "heads",
        /// Requests of one client.
        Requests = "requests",
        /// Passwords that are checked.
        Credentials = "credentials",
    }
}

label! {
    /// Why a connection ended that its client had not closed, or that brought no request.
    ClosedReason {
        /// What came was no request, or not all of one.
        Malformed = "malformed",
        /// The client took too little of an answer.
        Slow = "slow",
        /// Another client needed the place.
        Crowded = "crowded",
        /// The client sent too much.
        Unruly = "unruly",
        /// TLS was not agreed on, or who must announce a client did not.
        Handshake = "handshake",
    }
}

impl MethodClass {
    /// The class of a method.
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            _ => Self::Other,
        }
    }
}

impl CacheResult {
    /// What a `cache-status` header that this program wrote says.
    pub fn of(header: Option<&[u8]>) -> Self {
        let has = |word: &[u8]| {
            header.is_some_and(|header| header.windows(word.len()).any(|found| found == word))
        };
        if has(b"; hit; detail=ledger") {
            Self::Lent
        } else if has(b"; hit") {
            Self::Hit
        } else if has(b"; stored") {
            Self::Stored
        } else if has(b"; collapsed") {
            Self::Collapsed
        } else if has(b"; fwd=bypass") {
            Self::Bypass
        } else {
            Self::None
        }
    }

    /// Where bytes come from that were served so.
    pub const fn source(self) -> SourceClass {
        match self {
            Self::Hit | Self::Collapsed => SourceClass::Cache,
            Self::Lent => SourceClass::Ledger,
            Self::Stored | Self::Bypass | Self::None => SourceClass::Target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_in_their_order_and_differ() {
        for (at, route) in RouteClass::ALL.iter().enumerate() {
            assert_eq!(*route as usize, at);
        }
        let mut ends: Vec<&str> = End::ALL.iter().map(|end| end.as_str()).collect();
        ends.dedup();
        assert_eq!(ends.len(), End::ALL.len());
    }

    #[test]
    fn methods_of_clients_are_of_four_classes() {
        for (method, expected) in [
            ("GET", MethodClass::Get),
            ("HEAD", MethodClass::Head),
            ("POST", MethodClass::Post),
            ("get", MethodClass::Other),
            ("BREW", MethodClass::Other),
        ] {
            assert_eq!(MethodClass::of(&method.parse().expect("a method")), expected, "{method}");
        }
    }

    #[test]
    fn a_result_is_what_the_header_says() {
        for (header, expected) in [
            ("snapedge; hit", CacheResult::Hit),
            ("snapedge; hit; detail=ledger", CacheResult::Lent),
            ("snapedge; fwd=miss; stored", CacheResult::Stored),
            ("snapedge; fwd=miss; collapsed", CacheResult::Collapsed),
            ("snapedge; fwd=bypass; detail=head", CacheResult::Bypass),
            ("", CacheResult::None),
        ] {
            assert_eq!(CacheResult::of(Some(header.as_bytes())), expected, "{header}");
        }
        assert_eq!(CacheResult::of(None), CacheResult::None);
    }
}
