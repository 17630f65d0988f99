//! What `snapedge status` prints, as lines of text. Pure: a status in, lines out.
//! Whatever text a status contains comes from others, and is made printable here.

use console::{Style, measure_text_width, truncate_str};
use serde::Serialize;

use super::amounts::{amount, bytes, duration, rate};
use super::report::{
    Archive, Cache, Cached, Event, Fill, Group, Health, Limit, Pair, Status, Target, TargetState,
    Traffic, Transfer,
};

/// Most characters of one text that comes from a status.
const MAX_TEXT: usize = 300;
/// Most reasons, or groups, that the summary has.
const MAX_IN_SUMMARY: usize = 4;
/// Most targets without trouble that are listed.
const MAX_UP: usize = 20;
/// Most fills, archives of the cache, transfers or events that are listed.
const MAX_LISTED: usize = 10;
/// How short lists become, step by step, until all of them fit into the height of a terminal: first
/// groups and targets with trouble, second everything else.
const SHORTER: [(usize, usize); 8] =
    [(usize::MAX, MAX_LISTED), (10, 6), (10, 3), (8, 2), (6, 1), (6, 0), (4, 0), (2, 0)];
/// What fits into a line, of a target with trouble.
const OF_TROUBLE: [&str; 6] = ["target", "group", "state", "failures", "ejected until", "reason"];
/// Columns before the figures of a bar.
const BAR_COLUMNS: usize = 27;

/// What there is to say of one thing: names and values. Values that are not known are empty.
type Row = Vec<(&'static str, String)>;

/// What a terminal shows: lines of text, between them the bars of the fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Lines before the bars.
    pub above: Vec<String>,
    /// The bars, each of which takes two lines.
    pub fills: Vec<Bar>,
    /// Lines after the bars.
    pub below: Vec<String>,
}

/// A fill, for a line of text with a bar and figures below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The archive without its hash, and where it comes from.
    pub head: String,
    /// Bytes that are there, at most `length`.
    pub received: u64,
    /// Bytes that it will have; at least 1.
    pub length: u64,
    /// Percent, bytes, rate and time to go.
    pub figures: String,
}

/// The line for an edge that cannot be asked. `why` becomes printable.
pub fn unreachable(why: &str, color: bool) -> String {
    format!("{}: {}", colored("unreachable", color), printable(why))
}

/// A status for programs and files: one thing on each line, the summary first, no escape codes.
///
/// A line is a word for what it is about, then names and values: `group main offered full slot 1`.
pub fn plain(status: &Status) -> Vec<String> {
    let mut lines = vec![summary(status, false)];
    let facts = process(status).into_iter().map(|fact| joined(&[fact], " "));
    lines.extend(facts.filter(|line| !line.is_empty()));
    lines.push(joined(&configuration(status), " "));
    lines.extend(status.reasons.iter().map(|reason| format!("reason {}", printable(reason))));
    let (listed, more) = targets(status, [usize::MAX, MAX_UP]);
    let transfers = status.transfers.iter().take(MAX_LISTED);
    let more_transfers = status.transfers_total.saturating_sub(transfers.len());
    let cached = status.cache.iter().flat_map(|cache| &cache.archives);
    let rows = status.groups.iter().map(group).chain(status.groups.iter().flat_map(archives));
    lines.extend(rows.chain(status.fills.iter().map(fill)).map(|row| joined(&row, " ")));
    lines.extend(listed.concat().into_iter().map(|one| joined(&target(one, false), " ")));
    lines.extend(more.iter().map(|more| format!("targets {more}")));
    let rows = status.cache.iter().map(cache).chain(cached.map(cached_archive));
    lines.extend(rows.chain(transfers.map(transfer)).map(|row| joined(&row, " ")));
    lines.extend(more_of(more_transfers).map(|more| format!("transfers {more}")));
    let rows = limits(status).map(limit).chain([traffic(&status.traffic)]);
    let rows = rows.chain(status.events.iter().take(MAX_LISTED).map(event));
    lines.extend(rows.map(|row| joined(&row, " ")));
    lines
}

/// A status for a terminal, with health in colors if `color`. Where `size` is given, in columns and
/// lines, lists become shorter until all of it fits, and lines are cut.
pub fn screen(status: &Status, color: bool, size: Option<(usize, usize)>) -> Screen {
    let (width, height) = size.unwrap_or((usize::MAX, usize::MAX));
    let mut screens = SHORTER.into_iter().map(|(most, few)| shortened(status, color, most, few));
    let fitting = screens.find(|screen| screen.height() <= height);
    let mut screen = fitting.unwrap_or_else(|| shortened(status, color, 1, 0));
    screen.cut(width, height);
    screen
}

/// Text that does nothing to a terminal: control characters, changes of the direction of writing
/// and whatever else is invisible are escaped, and what is longer than 300 characters is cut.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    let mut room = MAX_TEXT;
    for c in text.chars() {
        let one = if matches!(c, '\'' | '"') { c.into() } else { c.escape_debug().to_string() };
        let Some(left) = room.checked_sub(one.chars().count()) else {
            shown.push('…');
            break;
        };
        room = left;
        shown.push_str(&one);
    }
    shown
}

impl Screen {
    fn height(&self) -> usize {
        self.above.len() + 2 * self.fills.len() + self.below.len()
    }

    /// Cuts it to a size, from below, and each line at the right.
    fn cut(&mut self, width: usize, height: usize) {
        self.above.truncate(height);
        self.fills.truncate((height - self.above.len()) / 2);
        self.below.truncate(height - self.above.len() - 2 * self.fills.len());
        let cut = |line: &mut String, width| *line = truncate_str(line, width, "…").into_owned();
        let heads = self.fills.iter_mut().map(|bar| &mut bar.head);
        self.above.iter_mut().chain(&mut self.below).chain(heads).for_each(|line| cut(line, width));
        let room = width.saturating_sub(BAR_COLUMNS);
        self.fills.iter_mut().for_each(|bar| cut(&mut bar.figures, room));
    }
}

fn shortened(status: &Status, color: bool, most: usize, few: usize) -> Screen {
    let mut above = vec![summary(status, color)];
    // What changes least is the first that there is no room for.
    let rows = [process(status), configuration(status), traffic(&status.traffic)].into_iter();
    let rows = rows.chain(status.cache.as_ref().map(cache)).skip(if few > 0 { 0 } else { 2 });
    above.extend(rows.map(|row| joined(&row, ", ")));
    if status.reasons.len() > 1 {
        let reasons = status.reasons.iter().map(|reason| vec![("", printable(reason))]).collect();
        above.extend(section("reasons", listed(reasons, most, 0)));
    }
    above.extend(section("groups", listed(status.groups.iter().map(group).collect(), most, 0)));
    let archives = status.groups.iter().take(most).flat_map(archives).collect();
    above.extend(section("archives", table(archives)));

    let fills = status.fills.iter().take(most.clamp(1, MAX_LISTED)).map(bar).collect::<Vec<_>>();
    let mut below = Vec::new();
    if !fills.is_empty() {
        above.extend([String::new(), "fills".to_owned()]);
        below.extend(more_of(status.fills.len() - fills.len()).map(|more| format!("  {more}")));
    }
    let ([troubled, up], more) = targets(status, [most, few * MAX_UP / MAX_LISTED]);
    let mut troubled: Vec<Row> = troubled.into_iter().map(|one| target(one, color)).collect();
    for row in &mut troubled {
        row.retain(|(name, _)| OF_TROUBLE.contains(name));
    }
    let up = up.into_iter().map(|one| target(one, color)).collect();
    let (mut troubled, mut up) = (table(troubled), table(up));
    let last = if up.is_empty() && !troubled.is_empty() { &mut troubled } else { &mut up };
    last.extend(more.iter().map(|more| format!("  {more}")));
    below.extend([section("targets with trouble", troubled), section("targets", up)].concat());
    let cached = status.cache.iter().flat_map(|cache| &cache.archives).map(cached_archive);
    below.extend(section("cache", listed(cached.collect(), few, 0)));
    let transfers = status.transfers.iter().map(transfer).collect::<Vec<_>>();
    let unlisted = status.transfers_total.saturating_sub(transfers.len());
    below.extend(section("transfers", listed(transfers, few, unlisted)));
    below.extend(section("limits", listed(limits(status).map(limit).collect(), few, 0)));
    let events = status.events.iter().take(few).map(event).collect();
    below.extend(section("events", table(events)));
    Screen { above, fills, below }
}

/// A heading and its lines; nothing at all without those.
fn section(name: &str, lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() { lines } else { [vec![String::new(), name.to_owned()], lines].concat() }
}

/// The first rows as a table, and how many more there are, with those that were left out before.
fn listed(mut rows: Vec<Row>, most: usize, unlisted: usize) -> Vec<String> {
    let more = rows.len().saturating_sub(most).saturating_add(unlisted);
    rows.truncate(most);
    let mut lines = table(rows);
    lines.extend(more_of(more).filter(|_| most > 0).map(|more| format!("  {more}")));
    lines
}

/// Rows as indented lines, the names of their values above them. All rows have the same names.
fn table(mut rows: Vec<Row>) -> Vec<String> {
    let archives = rows.iter_mut().flatten().filter(|(name, _)| *name == "name");
    archives.for_each(|(_, value)| *value = short(value));
    let names = rows.first().into_iter().flatten();
    let names: Row = names.map(|(name, _)| ("", (*name).to_owned())).collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let widest = cells.map(|(_, value)| measure_text_width(value)).max().unwrap_or(0);
        // A value that nobody knows has no column.
        if widest == 0 { 0 } else { widest.max(names[at].1.len()) }
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    // The first name is in the heading already.
    if names.iter().skip(1).any(|(_, name)| !name.is_empty()) {
        rows.insert(0, names);
    }
    let line = |row: &Row| {
        let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
        let padded = cells.map(|((_, value), width)| {
            let missing = width.saturating_sub(measure_text_width(value));
            format!("  {value}{:missing$}", "")
        });
        padded.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Names and values in one line, without values that are empty.
fn joined(row: &[(&str, String)], between: &str) -> String {
    let full = row.iter().filter(|(_, value)| !value.is_empty());
    let words = full.map(|(name, value)| format!("{name} {value}").trim_start().to_owned());
    words.collect::<Vec<_>>().join(between)
}

fn more_of(count: usize) -> Option<String> {
    (count > 0).then(|| format!("and {count} more"))
}

/// One line that says how the edge is: its health, and then the reasons or what it offers.
pub fn line(status: &Status) -> String {
    summary(status, false)
}

fn summary(status: &Status, color: bool) -> String {
    let health = colored(&word(&status.health), color);
    let mut parts: Vec<String> = if status.health != Health::Healthy && !status.reasons.is_empty() {
        status.reasons.iter().map(|reason| printable(reason)).collect()
    } else {
        status.groups.iter().map(offer).collect()
    };
    let more = parts.len().saturating_sub(MAX_IN_SUMMARY);
    parts.truncate(MAX_IN_SUMMARY);
    parts.extend(more_of(more));
    let empty = if parts.is_empty() { "there are no groups" } else { "" };
    format!("{health}: {empty}{}", parts.join("; "))
}

fn offer(group: &Group) -> String {
    let slots = match &group.offered {
        None => "nothing".to_owned(),
        Some(Pair { full, incremental: None }) => full.slot.to_string(),
        Some(Pair { full, incremental: Some(one) }) => format!("{} and {}", full.slot, one.slot),
    };
    let age = group.age_seconds.map_or_else(String::new, |age| format!(" ({age:.0} s old)"));
    let name = printable(&group.name);
    format!("{name} offers {slots}{age}, {} of {} targets up", group.targets_up, group.targets)
}

fn process(status: &Status) -> Row {
    vec![
        ("version", printable(&status.program)),
        ("uptime", duration(status.uptime_seconds)),
        ("cluster slot", known(status.cluster_slot, |slot| slot.to_string())),
        ("time", printable(&status.now)),
        ("started", printable(&status.started)),
    ]
}

fn configuration(status: &Status) -> Row {
    let used = &status.configuration;
    vec![
        ("configuration", used.file.as_deref().map_or("without a file".to_owned(), printable)),
        ("since", printable(&used.since)),
        ("reloads", used.reloads.to_string()),
        ("failed", used.reloads_failed.to_string()),
        ("error", known(used.last_error.as_deref(), printable)),
    ]
}

/// A value that may not be known, as text; none where it is not.
fn known<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map(text).unwrap_or_default()
}

fn group(group: &Group) -> Row {
    vec![
        ("group", printable(&group.name)),
        ("up", format!("{} of {}", group.targets_up, group.targets)),
        ("age", known(group.age_seconds, duration)),
        ("behind", known(group.age_slots, |slots| format!("{slots} slots"))),
        ("unchanged", known(group.unchanged_seconds, duration)),
        ("conflicts", group.conflicts.to_string()),
    ]
}

/// The archives that a group offers and wants.
fn archives(group: &Group) -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, pair) in [("offered", &group.offered), ("wanted", &group.wanted)] {
        let of = |kind, one| archive(group, what, kind, one);
        rows.extend(pair.iter().map(|pair| of("full", &pair.full)));
        let incremental = pair.iter().filter_map(|pair| pair.incremental.as_ref());
        rows.extend(incremental.map(|one| of("incremental", one)));
    }
    rows
}

fn archive(group: &Group, what: &str, kind: &str, archive: &Archive) -> Row {
    vec![
        ("group", printable(&group.name)),
        ("", what.to_owned()),
        ("", kind.to_owned()),
        ("slot", archive.slot.to_string()),
        ("size", archive.size.map_or("unknown".to_owned(), bytes)),
        ("cached", if archive.cached { "yes" } else { "no" }.to_owned()),
        ("sources", archive.sources.to_string()),
        ("name", printable(&archive.name)),
    ]
}

/// The name of an archive with the first 8 characters of its hash: all of it is wide.
fn short(name: &str) -> String {
    let (before, hash) = name.rsplit_once('-').unwrap_or((name, ""));
    let hash: String = hash.chars().take(8).collect();
    if hash.is_empty() { before.to_owned() } else { format!("{before}-{hash}…") }
}

fn bar(fill: &Fill) -> Bar {
    let (group, source) = (printable(&fill.group), printable(&fill.source));
    let (name, time, readers) =
        (short(&printable(&fill.name)), duration(fill.seconds), fill.readers);
    let head = format!("  {name} of {group} from {source}, for {time}, {readers} readers");
    let length = fill.length.filter(|length| *length > 0);
    let percent = |length| format!("{:>3} %", u128::from(fill.received) * 100 / u128::from(length));
    let mut figures = Vec::from_iter(length.map(percent));
    figures.push(part(fill.received, fill.length));
    figures.extend(fill.rate.map(rate));
    figures.extend(fill.seconds_left.map(|left| format!("{} to go", duration(left))));
    let length = length.unwrap_or(u64::MAX);
    Bar { head, received: fill.received.min(length), length, figures: figures.join("  ") }
}

fn fill(fill: &Fill) -> Row {
    vec![
        ("fill", printable(&fill.name)),
        ("group", printable(&fill.group)),
        ("source", printable(&fill.source)),
        ("received", part(fill.received, fill.length)),
        ("rate", known(fill.rate, rate)),
        ("left", known(fill.seconds_left, duration)),
        ("time", duration(fill.seconds)),
        ("readers", fill.readers.to_string()),
    ]
}

/// As many targets with trouble, and as many of those that are up; and sentences on all others.
fn targets(status: &Status, most: [usize; 2]) -> ([Vec<&Target>; 2], Vec<String>) {
    let is_down = |target: &&Target| target.state != TargetState::Up;
    let (mut troubled, mut up): (Vec<_>, Vec<_>) = status.targets.iter().partition(is_down);
    let unlisted = status.targets_total.saturating_sub(status.targets.len());
    // The worst come first: where those end that the status has, nobody behind them has trouble.
    let (known, unknown) = if up.is_empty() { (0, unlisted) } else { (unlisted, 0) };
    let more_troubled = troubled.len().saturating_sub(most[0]);
    let more_up = up.len().saturating_sub(most[1]).saturating_add(known);
    troubled.truncate(most[0]);
    up.truncate(most[1]);
    let more = [(more_troubled, " with trouble"), (unknown, ""), (more_up, " are up")].into_iter();
    let more = more.filter(|(count, _)| *count > 0);
    ([troubled, up], more.map(|(count, how)| format!("and {count} more{how}")).collect())
}

fn target(target: &Target, color: bool) -> Row {
    vec![
        ("target", printable(&target.target)),
        ("group", printable(&target.group)),
        ("state", colored(&word(&target.state), color)),
        ("kind", word(&target.kind)),
        ("slot", known(target.slot, |slot| slot.to_string())),
        ("archives", target.archives.to_string()),
        ("answered", known(target.answered_seconds_ago, |time| format!("{} ago", duration(time)))),
        ("probe", known(target.probe_seconds, duration)),
        ("rate", known(target.rate, rate)),
        ("transfers", target.transfers.to_string()),
        ("received", bytes(target.received_bytes)),
        ("failures", target.failures.to_string()),
        ("ejected until", known(target.ejected_until.as_deref(), printable)),
        ("reason", known(target.reason.as_deref(), printable)),
    ]
}

fn cache(cache: &Cache) -> Row {
    vec![
        ("cache", printable(&cache.directory)),
        ("used", bytes(cache.used_bytes)),
        ("reserved", bytes(cache.reserved_bytes)),
        ("free", known(cache.free_bytes, bytes)),
        ("max_size", known(cache.max_bytes, bytes)),
        ("min_free_space", bytes(cache.min_free_bytes)),
    ]
}

fn cached_archive(archive: &Cached) -> Row {
    vec![
        ("cached", if archive.offered { "offered" } else { "kept" }.to_owned()),
        ("size", bytes(archive.size)),
        ("age", duration(archive.age_seconds)),
        ("lease", known(archive.lease_seconds, duration)),
        ("readers", archive.readers.to_string()),
        ("group", printable(&archive.group)),
        ("source", printable(&archive.source)),
        ("name", printable(&archive.name)),
    ]
}

fn transfer(transfer: &Transfer) -> Row {
    vec![
        ("transfer", printable(&transfer.request_id)),
        ("client", printable(&transfer.client)),
        ("source", printable(&transfer.source)),
        ("sent", part(transfer.sent, transfer.length)),
        ("rate", rate(transfer.rate)),
        ("time", duration(transfer.seconds)),
        ("name", printable(&transfer.name)),
    ]
}

/// The bounds that somebody came near to.
fn limits(status: &Status) -> impl Iterator<Item = &Limit> {
    status.limits.iter().filter(|limit| limit.used > 0 || limit.refused > 0)
}

fn limit(limit: &Limit) -> Row {
    vec![
        ("limit", printable(&limit.name)),
        (
            "used",
            format!("{} of {}", amount(limit.used, limit.unit), amount(limit.limit, limit.unit)),
        ),
        ("refused", limit.refused.to_string()),
    ]
}

fn traffic(traffic: &Traffic) -> Row {
    vec![
        ("traffic sent", rate(traffic.sent_rate)),
        ("received", rate(traffic.received_rate)),
        ("sent in all", bytes(traffic.sent_bytes)),
        ("received in all", bytes(traffic.received_bytes)),
        ("requests", traffic.requests.to_string()),
    ]
}

fn event(event: &Event) -> Row {
    vec![("event", printable(&event.time)), ("", word(&event.kind)), ("", printable(&event.text))]
}

/// A word for how something is, in the color of that.
fn colored(word: &str, color: bool) -> String {
    let style = match word {
        "healthy" | "up" => Style::new().green(),
        "degraded" | "down" | "unreachable" => Style::new().red(),
        "starting" | "draining" | "failing" | "ejected" => Style::new().yellow(),
        _ => Style::new(),
    };
    style.force_styling(color).apply_to(word).to_string()
}

/// A word of the status as the JSON has it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned()
}

fn part(done: u64, length: Option<u64>) -> String {
    let length = length.map_or_else(|| "unknown length".to_owned(), bytes);
    format!("{} of {length}", bytes(done))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FULL: &str = "snapshot-423000000-9ZyJX7Hn3QwU5bZkqv1d.tar.zst";
    const INCREMENTAL: &str = "incremental-snapshot-423000000-423012345-5bZkqv1dGZkQ.tar.zst";
    const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[31m\u{202e}a\r\nb\u{9b}2J\u{200b}";

    fn archive(name: &str, slot: u64, size: Option<u64>) -> Value {
        json!({ "name": name, "slot": slot, "size": size, "cached": size.is_some(), "sources": 3 })
    }

    fn target(name: &str, state: &str, reason: Option<&str>) -> Value {
        let until = (state == "ejected").then_some("2026-07-01T10:05:00.000Z");
        json!({
            "group": "main", "target": name, "kind": "rpc", "state": state, "reason": reason,
            "answered_seconds_ago": 1.2, "probe_seconds": 0.034, "failures": 2, "archives": 3,
            "slot": 423_012_345, "ejected_until": until, "rate": 104_857_600, "transfers": 1,
            "received_bytes": 5_368_709_120_u64,
        })
    }

    fn fill(received: u64, length: Option<u64>) -> Value {
        json!({
            "name": INCREMENTAL, "group": "main", "source": "10.0.0.1:8899", "received": received,
            "length": length, "rate": length.map(|_| 12_900_000), "seconds": 33.0, "readers": 2,
            "seconds_left": length.map(|_| 200.4),
        })
    }

    fn empty() -> Value {
        json!({
            "version": 1, "program": "0.1.0", "now": "2026-07-01T10:00:00.000Z",
            "started": "2026-06-28T06:00:00.000Z", "uptime_seconds": 273_600.0,
            "health": "starting", "reasons": [],
            "configuration": {
                "file": null, "since": "2026-06-28T06:00:00.000Z", "reloads": 0,
                "reloads_failed": 0, "last_error": null,
            },
            "cluster_slot": null, "groups": [], "targets": [], "targets_total": 0, "fills": [],
            "cache": null, "transfers": [], "transfers_total": 0, "limits": [],
            "traffic": {
                "requests": 0, "sent_bytes": 0, "received_bytes": 0, "sent_rate": 0,
                "received_rate": 0,
            },
            "history": [], "events": [],
        })
    }

    fn full() -> Value {
        let mut full = empty();
        full["health"] = json!("healthy");
        full["cluster_slot"] = json!(423_012_400);
        let pair = json!({
            "full": archive(FULL, 423_000_000, Some(107_374_182_400)),
            "incremental": archive(INCREMENTAL, 423_012_345, None),
        });
        full["groups"] = json!([{
            "name": "main", "offered": pair, "wanted": null, "age_slots": 55, "age_seconds": 412.3,
            "unchanged_seconds": 300.0, "targets": 302, "targets_up": 300, "conflicts": 0,
        }]);
        let up = (0..100).map(|at| target(&format!("10.0.1.{at}:8899"), "up", None));
        let troubled = [("10.0.0.9:8899", "down"), ("10.0.0.8:8899", "ejected")];
        let troubled = troubled.map(|(name, state)| target(name, state, Some("why it is so")));
        full["targets"] = troubled.into_iter().chain(up).collect();
        full["targets_total"] = json!(302);
        full["fills"] = json!([fill(500, Some(2000)), fill(4096, None)]);
        full["cache"] = json!({
            "directory": "/var/lib/snapedge", "used_bytes": 107_374_182_400_u64,
            "reserved_bytes": 2000, "free_bytes": null, "max_bytes": null, "min_free_bytes": 1024,
            "archives": [{
                "name": FULL, "group": "main", "source": "10.0.0.1:8899",
                "size": 107_374_182_400_u64, "age_seconds": 4000.0, "readers": 3, "offered": true,
                "lease_seconds": null,
            }],
        });
        let transfer = json!({
            "request_id": "r1", "client": "192.0.2.1:41234", "name": FULL, "source": "cache",
            "sent": 1_073_741_824, "length": 107_374_182_400_u64, "rate": 12_900_000,
            "seconds": 33.0,
        });
        full["transfers"] = vec![transfer; 12].into();
        full["transfers_total"] = json!(40);
        let limit = |name, used, refused| {
            let of = 9;
            json!({ "name": name, "used": used, "limit": of, "refused": refused })
        };
        full["limits"] = json!([limit("used", 1, 0), limit("refused", 0, 2), limit("calm", 0, 0)]);
        let event = json!({ "time": "T", "kind": "fill_failed", "text": "it is over" });
        full["events"] = vec![event; 12].into();
        full
    }

    fn status(value: Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    fn all(screen: &Screen) -> Vec<String> {
        let fills = screen.fills.iter().flat_map(|bar| [bar.head.clone(), bar.figures.clone()]);
        screen.above.iter().cloned().chain(fills).chain(screen.below.iter().cloned()).collect()
    }

    #[test]
    fn everything_is_told_in_lines() {
        let lines = plain(&status(full()));
        let expected = [
            "healthy: main offers 423000000 and 423012345 (412 s old), 300 of 302 targets up",
            "version 0.1.0",
            "uptime 3d4h",
            "cluster slot 423012400",
            "configuration without a file since 2026-06-28T06:00:00.000Z reloads 0 failed 0",
            "group main up 300 of 302 age 6m52s behind 55 slots unchanged 5m0s conflicts 0",
            &format!(
                "group main offered full slot 423000000 size 100.0 GiB cached yes sources 3 name \
                 {FULL}"
            ),
            &format!(
                "group main offered incremental slot 423012345 size unknown cached no sources 3 \
                 name {INCREMENTAL}"
            ),
            &format!(
                "fill {INCREMENTAL} group main source 10.0.0.1:8899 received 500 B of 1.9 KiB rate \
                 12.3 MiB/s left 3m20s time 33s readers 2"
            ),
            "target 10.0.0.8:8899 group main state ejected kind rpc slot 423012345 archives 3 \
             answered 1s ago probe 34ms rate 100.0 MiB/s transfers 1 received 5.0 GiB failures 2 \
             ejected until 2026-07-01T10:05:00.000Z reason why it is so",
            "targets and 280 more are up",
            "cache /var/lib/snapedge used 100.0 GiB reserved 1.9 KiB min_free_space 1.0 KiB",
            &format!(
                "cached offered size 100.0 GiB age 1h6m readers 3 group main source 10.0.0.1:8899 \
                 name {FULL}"
            ),
            &format!(
                "transfer r1 client 192.0.2.1:41234 source cache sent 1.0 GiB of 100.0 GiB rate \
                 12.3 MiB/s time 33s name {FULL}"
            ),
            "transfers and 30 more",
            "limit used used 1 of 9 refused 0",
            "limit refused used 0 of 9 refused 2",
            "event T fill_failed it is over",
        ];
        for line in expected {
            assert!(lines.iter().any(|one| one == line), "no `{line}` in {lines:#?}");
        }
        assert_eq!(lines[0], expected[0]);
        let count = |word| lines.iter().filter(|line| line.starts_with(word)).count();
        assert_eq!([count("target "), count("transfer "), count("event ")], [22, 10, 10]);
        assert_eq!(count("limit calm"), 0);
    }

    #[test]
    fn a_terminal_shows_sections_and_bars() {
        let screen = screen(&status(full()), false, None);
        let has = |line: &str| screen.above.iter().chain(&screen.below).any(|one| one == line);
        assert!(has("groups") && has("targets with trouble") && has("events"), "{screen:#?}");
        assert!(has("  and 280 more are up") && has("  and 30 more"), "{screen:#?}");
        assert!(has("  group                        slot       size       cached  sources  name"));
        assert!(has("  main   offered  incremental  423012345  unknown    no      3        \
             incremental-snapshot-423000000-423012345-5bZkqv1d…"));
        let bars = screen.fills.iter().map(|bar| (bar.received, bar.length, bar.figures.as_str()));
        let expected = [
            (500, 2000, " 25 %  500 B of 1.9 KiB  12.3 MiB/s  3m20s to go"),
            (4096, u64::MAX, "4.0 KiB of unknown length"),
        ];
        assert_eq!(bars.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_empty_status_is_shown_as_well() {
        let status = status(empty());
        let lines = plain(&status);
        assert_eq!(lines[0], "starting: there are no groups");
        assert_eq!(lines.len(), 7, "{lines:#?}");
        assert!(lines.iter().all(|line| !line.is_empty()), "{lines:#?}");
        let screen = screen(&status, false, None);
        assert_eq!((screen.above.len(), screen.fills.len(), screen.below.len()), (4, 0, 0));
    }

    #[test]
    fn a_summary_has_reasons_where_it_is_not_healthy() {
        let check = |change: &dyn Fn(&mut Value), expected: &str| {
            let mut value = full();
            change(&mut value);
            assert_eq!(summary(&status(value), false), expected);
        };
        let degraded = |reasons: &[&str]| {
            let reasons = json!(reasons);
            move |value: &mut Value| {
                value["health"] = json!("degraded");
                value["reasons"] = reasons.clone();
            }
        };
        check(&degraded(&["group main: no target is up"]), "degraded: group main: no target is up");
        check(&degraded(&["a"; 6]), "degraded: a; a; a; a; and 2 more");
        let nothing = |value: &mut Value| {
            value["groups"][0]["offered"] = Value::Null;
            value["groups"][0]["age_seconds"] = Value::Null;
        };
        check(&nothing, "healthy: main offers nothing, 300 of 302 targets up");
        let full = |value: &mut Value| value["groups"][0]["offered"]["incremental"] = Value::Null;
        check(&full, "healthy: main offers 423000000 (412 s old), 300 of 302 targets up");
    }

    #[test]
    fn targets_that_are_not_listed_are_counted() {
        let check = |states: &[&str], total: usize, most, expected: &[&str]| {
            let mut value = empty();
            value["targets"] = states.iter().map(|state| target("a:1", state, None)).collect();
            value["targets_total"] = json!(total);
            assert_eq!(targets(&status(value), most).1, expected, "{states:?}");
        };
        check(&["down", "up", "up"], 3, [5, 5], &[]);
        check(&["down", "up", "up"], 9, [5, 1], &["and 7 more are up"]);
        check(&["down", "empty"], 9, [5, 5], &["and 7 more"]);
        check(
            &["down", "empty", "up"],
            3,
            [1, 0],
            &["and 1 more with trouble", "and 1 more are up"],
        );
    }

    /// Replaces every text by a hostile one; words that the program itself chooses stay.
    fn spoil(value: &mut Value) {
        let chosen = ["health", "kind", "state"];
        match value {
            Value::String(text) => *text = HOSTILE.repeat(100),
            Value::Array(values) => values.iter_mut().for_each(spoil),
            Value::Object(values) => {
                let values = values.iter_mut().filter(|(key, _)| !chosen.contains(&key.as_str()));
                values.for_each(|(_, value)| spoil(value));
            }
            _ => {}
        }
    }

    #[test]
    fn hostile_text_does_nothing_to_a_terminal() {
        let mut value = full();
        spoil(&mut value);
        value["health"] = json!("degraded");
        value["reasons"] = json!([HOSTILE, HOSTILE]);
        value["uptime_seconds"] = json!(1e300);
        value["fills"][0]["received"] = json!(u64::MAX);
        value["fills"][1]["length"] = json!(0);
        value["targets_total"] = json!(usize::MAX);
        value["transfers_total"] = json!(usize::MAX);
        let status = status(value);
        let lines = [plain(&status), all(&screen(&status, false, None))].concat();
        let is_hostile = |c: char| c.is_control() || c == '\u{202e}' || c == '\u{200b}';
        for line in lines.iter().chain([&unreachable(HOSTILE, false)]) {
            assert!(!line.contains(is_hostile), "{line:?}");
            assert!(line.chars().count() < 10 * MAX_TEXT, "{line:?}");
        }
        assert!(
            plain(&status)[0].starts_with(r"degraded: \u{1b}]0;x\u{7}\u{1b}[31m\u{202e}a\r\nb")
        );
    }

    #[test]
    fn text_is_made_printable_and_cut() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("it's \"Zürich\" 東京", "it's \"Zürich\" 東京");
        check("a\tb\0\u{7f}\u{85}", r"a\tb\0\u{7f}\u{85}");
        check("\u{2066}x\u{feff}\u{2028}", r"\u{2066}x\u{feff}\u{2028}");
        check(r"\u{1b}", r"\\u{1b}");
        check(&"x".repeat(MAX_TEXT), &"x".repeat(MAX_TEXT));
        check(&"x".repeat(MAX_TEXT + 1), &format!("{}…", "x".repeat(MAX_TEXT)));
    }

    #[test]
    fn a_screen_fits_and_troubles_are_the_last_to_go() {
        let status = status(full());
        for (width, height) in [(80, 23), (120, 39), (200, 60), (20, 5), (1, 1), (0, 0)] {
            let screen = screen(&status, true, Some((width, height)));
            assert!(screen.height() <= height, "{width} x {height}: {screen:#?}");
            let widths =
                screen.above.iter().chain(&screen.below).map(|one| measure_text_width(one));
            assert!(widths.max().unwrap_or(0) <= width, "{width} x {height}: {screen:#?}");
        }
        let small = screen(&status, false, Some((80, 23)));
        assert!(all(&small).iter().any(|line| line.contains("why it is so")), "{small:#?}");
        assert!(all(&small).contains(&"  and 1 more with trouble".to_owned()), "{small:#?}");
        assert_eq!(small.fills.len(), 1);
    }

    #[test]
    fn only_words_of_health_have_a_color() {
        let lines = all(&screen(&status(full()), true, None));
        assert!(lines[0].starts_with("\u{1b}[32mhealthy\u{1b}[0m: "), "{}", lines[0]);
        let colored = lines.iter().filter(|line| line.contains('\u{1b}')).count();
        assert_eq!(colored, 1 + 22);
        assert_eq!(unreachable("x", true), "\u{1b}[31munreachable\u{1b}[0m: x");
    }

    #[test]
    fn units_are_never_rounded_up() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (27 << 30, "27.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (size, expected) in sizes {
            assert_eq!(bytes(size), expected);
        }
        let times = [
            (-1.0, "0s"),
            (0.0, "0s"),
            (0.034, "34ms"),
            (59.9, "59s"),
            (200.0, "3m20s"),
            (18_180.0, "5h3m"),
            (187_200.0, "2d4h"),
            (1e300, "very long"),
        ];
        for (seconds, expected) in times {
            assert_eq!(duration(seconds), expected);
        }
    }
}
