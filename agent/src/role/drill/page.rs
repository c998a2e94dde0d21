//! A report as a page: one file that needs nothing else, to be read and printed. Every value comes
//! from outside and is escaped; the page forbids itself to load or run anything.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use vgship_base::units::ByteLen;

use super::{Report, Timed, Volume};

const STYLE: &str = "body{font:15px/1.45 sans-serif;color:#111;background:#fff;max-width:60em;\
margin:2em auto;padding:0 1em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}\
table{border-collapse:collapse;width:100%}th,td{border:1px solid #bbb;padding:.25em .5em;\
text-align:left;vertical-align:top;overflow-wrap:anywhere}th{background:#eee}\
pre{border:1px solid #bbb;padding:.6em;white-space:pre-wrap;overflow-wrap:anywhere}\
code{overflow-wrap:anywhere}.passed{color:#065f2c}.failed,.timed-out{color:#9b1111}\
@media print{body{margin:0;max-width:none}tr,pre{break-inside:avoid}}";

/// A text as a page shows it: nothing in it is markup, and what cannot be shown is seen as such.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' | '\t' => out.write_char(letter)?,
                letter if letter.is_control() => out.write_str("&#65533;")?,
                letter => out.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// The page of a report, without its signature: that is over the report's bytes, `json`, whose digest
/// the page names.
pub fn page(report: &Report, json: &[u8]) -> String {
    let mut page = String::new();
    let group = Text(&report.group);
    let result = report.result.as_str();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n<title>Drill of {group}: {result}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>Drill of {group}: <span class=\"{result}\">{result}</span></h1>\n"
    );
    if let Some(error) = &report.error {
        let _ = writeln!(page, "<p class=\"{result}\">{}</p>", Text(error));
    }
    rows(&mut page, &summary(report));
    page.push_str("<h2>Point</h2>\n");
    match &report.point {
        None => page.push_str("<p>No point was found.</p>\n"),
        Some(_) => rows(&mut page, &point(report)),
    }
    page.push_str("<h2>Steps</h2>\n");
    steps(&mut page, &report.steps);
    page.push_str("<h2>LVs of the clone</h2>\n");
    if !report.hashed {
        page.push_str("<p>Their content was not hashed.</p>\n");
    }
    volumes(&mut page, &report.volumes);
    let command = Text(&report.check.command);
    let _ = writeln!(page, "<h2>Check</h2>\n<pre>{command}</pre>");
    let ended = report.check.ended.as_deref().unwrap_or("it did not run");
    let _ = writeln!(page, "<p>{}</p>", Text(ended));
    if !report.check.output.is_empty() {
        let output = Text(&report.check.output);
        let _ = writeln!(page, "<p>The end of what it said:</p>\n<pre>{output}</pre>");
    }
    evidence(&mut page, report, json);
    page.push_str("</body>\n</html>\n");
    page
}

fn rows(page: &mut String, rows: &[(&str, String)]) {
    page.push_str("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", Text(value));
    }
    page.push_str("</table>\n");
}

fn summary(report: &Report) -> Vec<(&'static str, String)> {
    let rto = report.rto_seconds.map(|it| format!("{it:.3} s"));
    vec![
        ("group", report.group.clone()),
        ("agent", format!("{} (vgship {})", report.agent.name, report.agent.version)),
        ("begun", report.started.clone()),
        ("ended", report.ended.clone()),
        ("time to recover", rto.unwrap_or_else(|| "the check did not pass".to_owned())),
    ]
}

fn point(report: &Report) -> Vec<(&'static str, String)> {
    let Some(point) = &report.point else { return Vec::new() };
    let records = point.behind_records.map(|it| format!(", {it} records"));
    vec![
        ("asked for", point.asked.clone()),
        ("last record", point.at.clone()),
        ("by the source's clock", point.time.clone()),
        ("generation", point.generation.clone().unwrap_or_else(|| "not known".to_owned())),
        (
            "behind the newest",
            format!("{:.3} s{}", point.behind_seconds, records.unwrap_or_default()),
        ),
    ]
}

fn steps(page: &mut String, steps: &[Timed]) {
    page.push_str(
        "<table>\n<tr><th>step</th><th>what</th><th>begun</th><th>seconds</th><th>recovery</th>\
         <th>outcome</th></tr>\n",
    );
    for step in steps {
        let Timed { number, what, recovery, started, seconds, outcome } = step;
        let recovery = if *recovery { "yes" } else { "no" };
        let _ = writeln!(
            page,
            "<tr><td>{number}</td><td>{}</td><td>{}</td><td>{seconds:.3}</td><td>{recovery}</td>\
             <td>{}</td></tr>",
            Text(what),
            Text(started),
            Text(outcome.as_deref().unwrap_or_default())
        );
    }
    page.push_str("</table>\n<p>Steps of recovery make the time to recover.</p>\n");
}

fn volumes(page: &mut String, volumes: &[Volume]) {
    page.push_str("<table>\n<tr><th>LV</th><th>size</th><th>BLAKE3 before the check</th></tr>\n");
    for Volume { name, bytes, blake3 } in volumes {
        let hash = blake3.as_deref().unwrap_or("-");
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            Text(name),
            ByteLen(*bytes),
            Text(hash)
        );
    }
    page.push_str("</table>\n");
}

fn evidence(page: &mut String, report: &Report, json: &[u8]) {
    let mut digest = String::new();
    for byte in Sha256::digest(json) {
        let _ = write!(digest, "{byte:02x}");
    }
    let _ = writeln!(
        page,
        "<h2>Evidence</h2>\n<p>This page is for reading. What is signed is the JSON report with this \
         SHA-256:</p>\n<pre>{digest}</pre>\n<p>It is signed by the key of this agent:</p>\n\
         <pre>{}</pre>\n<p>To check it: <code>vgship drill verify REPORT.json</code>, with \
         REPORT.json.sig beside it.</p>",
        Text(&report.agent.key)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::drill::tests::hostile;

    #[test]
    fn the_page_of_a_report_does_not_change() {
        let report = hostile();
        let page = page(&report, &report.json());
        assert_eq!(page, include_str!("golden/report.html"));
    }

    /// Goal: whatever a name or a program's output holds, none of it becomes markup.
    #[test]
    fn nothing_from_outside_is_markup() {
        let report = hostile();
        let page = page(&report, &report.json());
        for tag in ["<script", "<img", "<b>", "<lv", "<check>", "</pre></body>\n"] {
            let outside = page.matches(tag).count();
            assert_eq!(outside, 0, "{tag}");
        }
        assert_eq!(page.matches("</body>").count(), 1);
        assert_eq!(page.matches('\u{1b}').count() + page.matches('\0').count(), 0);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        // Nothing is loaded from anywhere.
        for word in ["http://", "https://", "src=x", "url(", "@import"] {
            let found = page.replace("&gt;&lt;img src=x onerror", "").contains(word);
            assert!(!found, "{word}");
        }
    }
}
