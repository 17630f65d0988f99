//! What targets say of their archives, and what it is taken for.

mod codings;
mod head_requests;
mod long_heads;
mod not_now;
