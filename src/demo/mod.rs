//! demo
/// Runs.
pub fn run(_: &crate::cli::Demo) -> anyhow::Result<()> {
    Ok(())
}
