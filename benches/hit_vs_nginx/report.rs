//! What is printed.

use std::time::Duration;

use super::{LENGTH, TURNS};

/// Columns of one contender.
const WIDTH: usize = 22;

/// What one contender needed for one round.
#[derive(Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
}

/// Rounds, line by line, and their summary. The first contender is what the others are divided by.
pub(super) struct Report {
    labels: Vec<String>,
    rounds: Vec<Vec<Sample>>,
}

fn per_gb(time: Duration) -> f64 {
    time.as_secs_f64() / (f64::from(LENGTH) * f64::from(TURNS) / 1e9)
}

impl Report {
    pub(super) fn begin(labels: Vec<String>) -> Self {
        println!("CPU seconds of the server per GB, and in brackets seconds of the clock per GB");
        print!("round ");
        for label in &labels {
            print!("{label:>WIDTH$}");
        }
        println!();
        Self { labels, rounds: Vec::new() }
    }

    pub(super) fn round(&mut self, samples: Vec<Sample>) {
        print!("{:>5} ", self.rounds.len() + 1);
        for (at, sample) in samples.iter().enumerate() {
            let (cpu, wall) = (per_gb(sample.cpu), per_gb(sample.wall));
            let ratio =
                if at == 0 { String::new() } else { format!(" x{:.2}", ratio(&samples, at)) };
            let text = format!("{cpu:.3} ({wall:.3}){ratio}");
            print!("{text:>WIDTH$}");
        }
        println!();
        self.rounds.push(samples);
    }

    pub(super) fn end(self) {
        for (at, label) in self.labels.iter().enumerate() {
            let cpu = spread(self.rounds.iter().map(|round| per_gb(round[at].cpu)));
            println!("{label}: CPU seconds per GB {cpu}");
        }
        for (at, label) in self.labels.iter().enumerate().skip(1) {
            let ratios = spread(self.rounds.iter().map(|round| ratio(round, at)));
            println!("ratio of {label} to {}: {ratios}", self.labels[0]);
        }
    }
}

fn ratio(round: &[Sample], at: usize) -> f64 {
    round[at].cpu.as_secs_f64() / round[0].cpu.as_secs_f64()
}

/// Least, middle and greatest.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    let median = f64::midpoint(low, high);
    format!("min {:.3}, median {median:.3}, max {:.3}", values[0], values[values.len() - 1])
}
