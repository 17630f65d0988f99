//! Amounts as people read them. Pure.

use std::time::Duration;

use super::report::Unit;

/// Bytes as `512 B`, `1.5 KiB`, `27.1 GiB`, never rounded up.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Bytes per second as `12.3 MiB/s`.
pub(super) fn rate(per_second: u64) -> String {
    format!("{}/s", bytes(per_second))
}

/// Seconds as `34ms`, `12s`, `3m20s`, `5h3m`, `2d4h`, never rounded up.
pub(super) fn duration(seconds: f64) -> String {
    let Ok(time) = Duration::try_from_secs_f64(seconds.max(0.0)) else {
        return "very long".to_owned();
    };
    let whole = time.as_secs();
    match whole {
        0 if seconds > 0.0 => format!("{}ms", time.as_millis()),
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// So much of what a limit is counted in.
pub(super) fn amount(of: u64, unit: Unit) -> String {
    match unit {
        Unit::BytesPerSecond => rate(of),
        Unit::Count | Unit::Other => of.to_string(),
    }
}
