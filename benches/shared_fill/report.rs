//! What is printed.

use std::time::Duration;

use super::CLIENTS;

/// The columns of each protocol.
const COLUMNS: [&str; 5] = ["fetch", "second", "shared", "hits", "ratio"];
const WIDTH: usize = 8;

/// What was measured over one protocol.
#[derive(Default)]
pub(super) struct Figures {
    /// Until the origin had sent all of it, with a first client that is slow.
    pub(super) fetch: Duration,
    /// What a client took that came second.
    pub(super) second: Duration,
    /// Processor time of the edge for many clients of an archive that it does not have.
    pub(super) shared: Duration,
    /// The same for one that it has.
    pub(super) hits: Duration,
    /// Processor time of all edges that this took.
    pub(super) edges: Duration,
}

/// What was measured in one round.
pub(super) struct Round {
    /// What a client of the origin took.
    pub(super) direct: Duration,
    /// HTTP/1.1, HTTP/2.
    pub(super) figures: [Figures; 2],
    /// Share of the processors' time that others took.
    pub(super) others: f64,
}

/// Rounds, line by line, and their medians.
pub(super) struct Report {
    /// Sent to all clients together, in GB.
    gigabytes: f64,
    rounds: Vec<Vec<f64>>,
}

impl Report {
    /// Of rounds with an archive of so many bytes.
    pub(super) fn begin(length: u32) -> Self {
        println!(
            "T0: seconds that a client of the origin takes\n\
             fetch: until the origin has sent its last byte to an edge whose first client is slow\n\
             second: what a client of that edge takes that came next; both are divided by T0\n\
             shared: CPU seconds of the edge per GB for {CLIENTS} clients of what it has to fetch\n\
             hits: of what it has; ratio: the one before divided by this\n\
             others: share of the processors that other processes and the kernel took"
        );
        let group = COLUMNS.len() * WIDTH;
        println!("{:15}  {:>group$}  {:>group$}", "", "HTTP/1.1", "HTTP/2");
        print!("{:>7}{:>WIDTH$}", "round", "T0");
        for _ in 0..2 {
            print!("  ");
            for column in COLUMNS {
                print!("{column:>WIDTH$}");
            }
        }
        println!("  {:>WIDTH$}", "others");
        let gigabytes = f64::from(length) * f64::from(CLIENTS) / 1e9;
        Self { gigabytes, rounds: Vec::new() }
    }

    pub(super) fn round(&mut self, round: &Round) {
        let direct = round.direct.as_secs_f64();
        let mut values = vec![direct];
        for figures in &round.figures {
            let [fetch, second, shared, hits] =
                [figures.fetch, figures.second, figures.shared, figures.hits]
                    .map(|time| time.as_secs_f64());
            let per_gb = self.gigabytes;
            values.extend([fetch / direct, second / direct]);
            values.extend([shared / per_gb, hits / per_gb, shared / hits]);
        }
        values.push(round.others);
        self.rounds.push(values);
        line(&self.rounds.len().to_string(), &self.rounds[self.rounds.len() - 1]);
    }

    pub(super) fn end(self) {
        let columns = self.rounds.first().map_or(0, Vec::len);
        let values = |at: usize| self.rounds.iter().map(|round| round[at]).collect();
        let medians: Vec<f64> = (0..columns).map(|at| median(values(at))).collect();
        line("median", &medians);
    }
}

fn line(label: &str, values: &[f64]) {
    print!("{label:>7}");
    for (at, value) in values.iter().enumerate() {
        // Between what belongs to a protocol and what does not.
        let gap = if at % COLUMNS.len() == 1 { 2 } else { 0 };
        print!("{:gap$}{value:>WIDTH$.3}", "");
    }
    println!();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}
