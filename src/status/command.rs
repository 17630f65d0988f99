//! `snapedge status`: asks the internal listener of an edge how that is, prints it, and says it by
//! the exit code as well.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use console::{Term, colors_enabled, is_dumb};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval};
use url::Host;

use super::report::{Health, Status, VERSION};
use super::terminal::{Bar, Screen, plain, printable, screen, unreachable};
use crate::error_chain::chain;

/// Exit code: the edge is healthy.
pub const EXIT_HEALTHY: u8 = 0;
/// Exit code: the edge is degraded, starts, or is about to end.
pub const EXIT_DEGRADED: u8 = 1;
/// Exit code: nobody knows how the edge is.
pub const EXIT_UNREACHABLE: u8 = 2;

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(2);
/// Longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MAX_BODY: usize = 16 << 20;
/// A fill: a line of text, and below it the bar with figures.
const BAR: &str = "{prefix}\n    [{bar:20}] {msg}";
/// Lines of text.
const TEXT: &str = "{msg}";
/// How often per second a picture is drawn besides the one time that it is complete.
const DRAWN_PER_SECOND: u8 = 1;

/// The place of an internal listener: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: Host,
    port: u16,
}

/// An address that nobody can be asked at.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// The text is something else.
    #[error("`{0}` is not a host and port, write it like `127.0.0.1:8457` or `[::1]:8457`")]
    Malformed(String),
    /// The text is a URL that TLS is needed for, or another protocol.
    #[error(
        "`{0}` names another protocol than HTTP, which is all that the internal listener speaks: \
         write it like `127.0.0.1:8457`"
    )]
    Scheme(String),
    /// The configuration wants no listener.
    #[error(
        "this configuration has `internal_listen: off`, so that there is nobody to ask: give it an \
         address, or name the listener of another edge by `--connect`"
    )]
    Off,
}

/// What is asked, and how the answer is printed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is asked.
    pub address: Address,
    /// Whether it is asked again and again, every 2 seconds.
    pub watch: bool,
    /// Whether the answer is printed as it came.
    pub json: bool,
}

/// No status came.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(
        "cannot be asked: {0}; is the edge running, with its `internal_listen` there? (`--connect` \
         names another address)"
    )]
    Failed(String),
    #[error("did not answer within {} s; is that the `internal_listen` of an edge?", .0.as_secs())]
    Slow(Duration),
    #[error(
        "answered `{0}` and no status; is that the `internal_listen` of an edge, and one that has \
         `/status`?"
    )]
    Refused(StatusCode),
    #[error("answered with more than {0} bytes; is that the `internal_listen` of an edge?")]
    TooLong(usize),
    #[error("answered with no status; is that the `internal_listen` of an edge? {0}")]
    NoStatus(#[from] serde_json::Error),
    #[error(
        "answered with version {0} of the status, and this program reads version {VERSION}: ask \
         with the program that the edge runs"
    )]
    Version(u32),
}

/// The command cannot do its work.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("cannot make an HTTP client")]
    Client(#[from] reqwest::Error),
    #[error("cannot wait for answers")]
    Runtime(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// What every version of the status has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// What the exit code follows from.
#[derive(Deserialize)]
struct Head {
    health: Health,
}

/// Where answers go to.
enum Output {
    /// As they come.
    Json,
    /// As lines; empty ones between two answers.
    Plain { is_first: bool },
    /// As one picture in a terminal.
    Once,
    /// As one picture in a terminal, which the next one replaces.
    Board(Box<Board>),
}

/// A picture in a terminal that is drawn where the last one was.
struct Board {
    term: Term,
    size: (u16, u16),
    all: MultiProgress,
    above: ProgressBar,
    fills: Vec<ProgressBar>,
    below: ProgressBar,
}

/// Asks, prints, and returns the exit code: 0 healthy, 1 not, 2 where that is not known. With
/// `watch` it goes on until it is interrupted, or until nobody reads what it prints.
pub fn run(options: &Options) -> u8 {
    ask(options).unwrap_or_else(|error| {
        complain(&chain(&error));
        EXIT_UNREACHABLE
    })
}

impl Address {
    /// The address at which a listener of this configuration is asked; `listener` is nothing where
    /// there is to be none. One that listens on all addresses is asked on loopback.
    pub fn of_listener(listener: Option<SocketAddr>) -> Result<Self, AddressError> {
        let listener = listener.ok_or(AddressError::Off)?;
        let host = match listener.ip() {
            IpAddr::V4(ip) => Host::Ipv4(ip),
            IpAddr::V6(ip) => Host::Ipv6(ip),
        };
        Ok(Self { host, port: listener.port() }.reachable())
    }

    /// The unspecified address is for listening only.
    fn reachable(mut self) -> Self {
        match &mut self.host {
            Host::Ipv4(ip) if ip.is_unspecified() => *ip = Ipv4Addr::LOCALHOST,
            Host::Ipv6(ip) if ip.is_unspecified() => *ip = Ipv6Addr::LOCALHOST,
            _ => {}
        }
        self
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses `host:port`, `1.2.3.4:port`, `[::1]:port`, each with or without `http://`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bare = text.strip_prefix("http://").unwrap_or(text);
        if bare.contains("://") {
            return Err(AddressError::Scheme(printable(text)));
        }
        let malformed = || AddressError::Malformed(printable(text));
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = bare.rsplit_once(':').ok_or_else(malformed)?;
        let host = Host::parse(host).map_err(|_| malformed())?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(malformed)?;
        Ok(Self { host, port }.reachable())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn ask(options: &Options) -> Result<u8, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CommandError::Runtime)?;
    let code = runtime.block_on(follow(options));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    code
}

async fn follow(options: &Options) -> Result<u8, CommandError> {
    let client = Client::builder().no_proxy().redirect(redirect::Policy::none());
    let client = client.timeout(PATIENCE).build()?;
    let mut output = Output::new(options);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = pin!(interrupted());
    let mut code = EXIT_UNREACHABLE;
    loop {
        let next = async {
            ticks.tick().await;
            fetch(&client, &options.address).await
        };
        let answer = tokio::select! {
            answer = next => answer,
            () = &mut interrupted => break,
        };
        let shown;
        (code, shown) = output.show(&options.address, answer);
        match shown {
            Ok(()) if options.watch => {}
            Ok(()) => break,
            // Whoever read it has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(CommandError::Output(error)),
        }
    }
    output.end();
    Ok(code)
}

/// Waits for ctrl-c. Where that cannot be waited for, it ends the process by itself.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn fetch(client: &Client, address: &Address) -> Result<Vec<u8>, FetchError> {
    let url = format!("http://{address}/status");
    let asked = client.get(url).header(ACCEPT, "application/json").send();
    let mut response = asked.await.map_err(|error| FetchError::of(&error))?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Refused(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::of(&error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::TooLong(MAX_BODY));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl FetchError {
    fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Slow(PATIENCE);
        }
        // The causes above the first one say no more than that a request failed.
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Self::Failed(cause.to_string())
    }
}

/// What is wanted of a status of the version that this program reads.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FetchError> {
    let Versioned { version } = serde_json::from_slice(body)?;
    if version != VERSION {
        return Err(FetchError::Version(version));
    }
    Ok(serde_json::from_slice(body)?)
}

fn exit_code(health: Health) -> u8 {
    match health {
        Health::Healthy => EXIT_HEALTHY,
        _ => EXIT_DEGRADED,
    }
}

impl Output {
    fn new(options: &Options) -> Self {
        let term = Term::stdout();
        let is_terminal = term.is_term() && !is_dumb();
        match (options.json, is_terminal, options.watch) {
            (true, ..) => Self::Json,
            (_, false, _) => Self::Plain { is_first: true },
            (_, true, false) => Self::Once,
            (_, true, true) => Self::Board(Box::new(Board::new(term))),
        }
    }

    /// Prints an answer. Returns the exit code that it means, and whether it could be printed.
    fn show(
        &mut self,
        address: &Address,
        answer: Result<Vec<u8>, FetchError>,
    ) -> (u8, io::Result<()>) {
        let why = |error| format!("{address} {error}");
        if let Self::Json = self {
            let read = answer.and_then(|body| Ok((decode::<Head>(&body)?, body)));
            return match read.map_err(why) {
                Ok((head, body)) => (exit_code(head.health), write(as_it_came(body))),
                Err(why) => {
                    complain(&unreachable(&why, false));
                    (EXIT_UNREACHABLE, Ok(()))
                }
            };
        }
        let read = answer.and_then(|body| decode::<Status>(&body)).map_err(why);
        let code = read.as_ref().map_or(EXIT_UNREACHABLE, |status| exit_code(status.health));
        (code, self.print(read.as_ref().map_err(String::as_str)))
    }

    fn print(&mut self, read: Result<&Status, &str>) -> io::Result<()> {
        let color = colors_enabled();
        let picture = |size| match read {
            Ok(status) => screen(status, color, size),
            Err(why) => Screen { above: vec![unreachable(why, color)], ..Screen::default() },
        };
        match self {
            Self::Plain { is_first } => {
                let lines = read.map_or_else(|why| vec![unreachable(why, false)], plain);
                let between = if std::mem::take(is_first) { "" } else { "\n" };
                write(format!("{between}{}", text_of(&lines)))
            }
            Self::Once => print_once(&picture(None)),
            Self::Board(board) => {
                board.follow_size();
                board.draw(&picture(Some(board.room())));
                Ok(())
            }
            Self::Json => Ok(()),
        }
    }

    /// Leaves the last picture where it is, and the cursor below it.
    fn end(self) {
        if let Self::Board(board) = self {
            for bar in [&board.above, &board.below].into_iter().chain(&board.fills) {
                bar.abandon();
            }
            // Ended anyway.
            let _ = write("\n");
        }
    }
}

/// A picture of any height: bars are drawn where they belong among lines that scroll away.
fn print_once(picture: &Screen) -> io::Result<()> {
    write(text_of(&picture.above))?;
    if !picture.fills.is_empty() {
        let term = Term::buffered_stdout();
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term(term, 1));
        let bars: Vec<_> = picture.fills.iter().map(|fill| (all.add(new_bar()), fill)).collect();
        for (bar, fill) in &bars {
            set(bar, fill);
            bar.abandon();
        }
        write("\n")?;
    }
    write(text_of(&picture.below))
}

impl Board {
    fn new(term: Term) -> Self {
        let target = ProgressDrawTarget::term(Term::buffered_stdout(), DRAWN_PER_SECOND);
        let all = MultiProgress::with_draw_target(target);
        let text = || all.add(ProgressBar::no_length().with_style(style(TEXT)));
        let (above, below) = (text(), text());
        Self { size: term.size(), term, all, above, fills: Vec::new(), below }
    }

    /// Begins anew in a terminal that became wider or narrower: its lines are no longer where they
    /// were.
    fn follow_size(&mut self) {
        if self.term.size() != self.size {
            self.all.set_draw_target(ProgressDrawTarget::hidden());
            // Where this fails, the new picture is drawn below the old one.
            let _ = self.term.clear_screen();
            *self = Self::new(self.term.clone());
        }
    }

    /// Columns and lines that there are; the last line is left to the cursor.
    fn room(&self) -> (usize, usize) {
        let (height, width) = self.size;
        (width.into(), usize::from(height).saturating_sub(1))
    }

    fn draw(&mut self, picture: &Screen) {
        self.above.set_message(picture.above.join("\n"));
        while self.fills.len() < picture.fills.len() {
            self.fills.push(self.all.insert_before(&self.below, new_bar()));
        }
        for bar in self.fills.drain(picture.fills.len()..) {
            self.all.remove(&bar);
        }
        for (bar, fill) in self.fills.iter().zip(&picture.fills) {
            set(bar, fill);
        }
        self.below.set_message(picture.below.join("\n"));
        self.below.force_draw();
    }
}

fn new_bar() -> ProgressBar {
    ProgressBar::new(1).with_style(style(BAR).progress_chars("=> "))
}

fn set(bar: &ProgressBar, fill: &Bar) {
    bar.set_length(fill.length);
    bar.set_position(fill.received);
    bar.set_prefix(fill.head.clone());
    bar.set_message(fill.figures.clone());
}

/// The style of a template of this file; they are all good.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Lines, each with its end.
fn text_of(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// A body with a line's end, without which a shell's prompt would follow in the same line.
fn as_it_came(mut body: Vec<u8>) -> Vec<u8> {
    if !body.ends_with(b"\n") {
        body.push(b'\n');
    }
    body
}

fn write(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_ref())?;
    out.flush()
}

fn complain(text: &str) {
    // There is nobody left to tell that this did not work.
    let _ = writeln!(io::stderr(), "snapedge: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected, "{text}");
        };
        check("10.0.0.1:8457", "10.0.0.1:8457");
        check("http://10.0.0.1:8457", "10.0.0.1:8457");
        check("http://edge.example:80/", "edge.example:80");
        check("[::1]:8457", "[::1]:8457");
        check("0.0.0.0:8457", "127.0.0.1:8457");
        check("[::]:8457", "[::1]:8457");
        let wrong = |text: &str| text.parse::<Address>().unwrap_err();
        for text in
            ["", "edge", "edge:", "edge:0", "edge:+1", "edge:65536", ":1", "a@b:1", "edge:1/status"]
        {
            assert_eq!(wrong(text), AddressError::Malformed(text.to_owned()));
        }
        let https = "https://edge:1";
        assert_eq!(wrong(https), AddressError::Scheme(https.to_owned()));
        assert_eq!(wrong("\u{1b}"), AddressError::Malformed("\\u{1b}".to_owned()));
    }

    #[test]
    fn the_address_of_a_listener_is_one_that_can_be_asked() {
        let of = |text: &str| Address::of_listener(Some(text.parse().unwrap())).unwrap();
        assert_eq!(of("10.0.0.1:1").to_string(), "10.0.0.1:1");
        assert_eq!(of("0.0.0.0:1").to_string(), "127.0.0.1:1");
        assert_eq!(of("[::]:1").to_string(), "[::1]:1");
        let off = Address::of_listener(None).unwrap_err();
        assert!(off.to_string().contains("`--connect`"), "{off}");
        assert_eq!(of("127.0.0.1:8457").to_string(), "127.0.0.1:8457");
    }

    #[test]
    fn the_exit_code_follows_from_the_health() {
        let check = |health, expected| assert_eq!(exit_code(health), expected);
        check(Health::Healthy, 0);
        check(Health::Degraded, 1);
        check(Health::Starting, 1);
        check(Health::Draining, 1);
    }

    #[test]
    fn only_a_status_of_this_version_is_read() {
        let read = |body: &str| decode::<Head>(body.as_bytes()).map(|head| head.health);
        assert_eq!(read(r#"{"version":1,"health":"healthy","new":[]}"#).unwrap(), Health::Healthy);
        let newer = r#"{"version":1,"health":"splendid"}"#;
        assert_eq!(exit_code(read(newer).unwrap()), EXIT_DEGRADED, "a word of another version");
        for body in ["", "<html>", "[]", "{}", r#"{"version":1}"#, r#"{"version":1,"health":1}"#] {
            assert!(matches!(read(body), Err(FetchError::NoStatus(_))), "{body}");
        }
        let newer = read(r#"{"version":2}"#).unwrap_err();
        assert!(newer.to_string().contains("version 2"), "{newer}");
        assert!(matches!(newer, FetchError::Version(2)));
    }

    #[test]
    fn a_body_is_printed_as_it_came() {
        assert_eq!(as_it_came(b"{}".to_vec()), b"{}\n");
        assert_eq!(as_it_came(b"{ }\r\n".to_vec()), b"{ }\r\n");
    }

    #[test]
    fn templates_are_good() {
        for template in [BAR, TEXT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
