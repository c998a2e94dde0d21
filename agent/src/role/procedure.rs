//! What a procedure did, step by step: shown while it runs, and kept as JSON and Markdown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A procedure, running or over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Procedure {
    /// `switchover`, `failover`, `failback`.
    pub kind: String,
    /// Of which group.
    pub group: String,
    /// On which agent it ran.
    pub agent: String,
    /// The generation that it acted on.
    pub generation: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took, or has taken. Unit: seconds.
    pub seconds: f64,
    /// Whether it is over.
    pub over: bool,
    /// Why it failed, once it has.
    pub error: Option<String>,
    /// What it did, in order.
    pub steps: Vec<Step>,
    /// What is worth knowing of it, in order: a name and what it is.
    pub facts: Vec<(String, String)>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub number: usize,
    /// What it does.
    pub what: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took; absent while it runs. Unit: seconds.
    pub seconds: Option<f64>,
    /// What came of it; absent while it runs, or where there is nothing to say.
    pub outcome: Option<String>,
}

impl Step {
    /// The step as a line for people.
    pub fn line(&self) -> String {
        let mut line = format!("{:>2}  {}", self.number, self.what);
        if let Some(seconds) = self.seconds {
            let _ = write!(line, "  {seconds:.3} s");
        }
        if let Some(outcome) = &self.outcome {
            let _ = write!(line, "  {outcome}");
        }
        line
    }
}

impl Procedure {
    /// The record for people.
    pub fn markdown(&self) -> String {
        let Procedure { kind, group, agent, generation, started, seconds, .. } = self;
        let mut text = format!(
            "# {kind} of {group}\n\n- agent: {agent}\n- generation: {generation}\n- begun: \
             {started}\n- took: {seconds:.3} s\n"
        );
        let end = match (&self.error, self.over) {
            (Some(error), _) => format!("FAILED: {error}"),
            (None, true) => "done".to_owned(),
            (None, false) => "not over when this was written".to_owned(),
        };
        let _ = writeln!(text, "- outcome: {end}");
        for (name, fact) in &self.facts {
            let _ = writeln!(text, "- {name}: {fact}");
        }
        text.push_str("\n| step | what | begun | seconds | outcome |\n|---|---|---|---|---|\n");
        for Step { number, what, started, seconds, outcome } in &self.steps {
            let seconds = seconds.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}"));
            let outcome = outcome.as_deref().unwrap_or_default().replace('|', "\\|");
            let _ = writeln!(text, "| {number} | {what} | {started} | {seconds} | {outcome} |");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_says_each_step_and_how_it_ended() {
        let step = Step {
            number: 1,
            what: "keep writes away".into(),
            started: "2026-05-01T08:00:00Z".into(),
            seconds: Some(0.25),
            outcome: Some("a | b".into()),
        };
        assert_eq!(step.line(), " 1  keep writes away  0.250 s  a | b");
        let running = Step { seconds: None, outcome: None, number: 2, ..step.clone() };
        let procedure = Procedure {
            kind: "switchover".into(),
            group: "g".into(),
            agent: "a".into(),
            generation: "4f".into(),
            started: step.started.clone(),
            seconds: 1.5,
            over: true,
            error: Some("no".into()),
            steps: vec![step, running],
            facts: vec![("fork".into(), "1.2".into())],
        };
        let text = procedure.markdown();
        for line in [
            "# switchover of g\n",
            "- outcome: FAILED: no\n",
            "- fork: 1.2\n",
            "| 1 | keep writes away | 2026-05-01T08:00:00Z | 0.250 | a \\| b |\n",
            "| 2 | keep writes away | 2026-05-01T08:00:00Z | - |  |\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
