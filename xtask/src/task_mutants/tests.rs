//! The rewriting: what is found, what is left alone, and that what is written is still Rust.

use super::find::find;
use super::list;
use super::place::{Form, Mutant};
use super::schema;

fn found(text: &str) -> Vec<Mutant> {
    find("agent/src/a.rs", "a.rs", text).expect("it is Rust")
}

fn names(text: &str) -> Vec<String> {
    found(text).into_iter().map(|mutant| mutant.name).collect()
}

fn written(text: &str, mutants: &[Mutant]) -> schema::Schema {
    let numbered: Vec<(u32, &Mutant)> = (1..).zip(mutants).collect();
    let schema = schema::write(text, &numbered);
    syn::parse_file(&schema.text).unwrap_or_else(|why| panic!("{why}: {}", schema.text));
    schema
}

#[test]
fn names_tell_place_and_change() {
    let text = "fn a(x: u8, y: u8) -> bool {\n    x < y && !(x == 1)\n}\n";
    let expected = [
        "a.rs:1:29 fn a -> return true",
        "a.rs:1:29 fn a -> return false",
        "a.rs:2:7 < -> <=",
        "a.rs:2:11 && -> ||",
        "a.rs:2:14 ! -> nothing",
        "a.rs:2:18 == -> !=",
    ];
    assert_eq!(names(text), expected);
}

#[test]
fn tests_constants_and_patterns_are_left_alone() {
    let text = "const A: usize = 1 + 2;\n\
                static B: [u8; 1 + 1] = [0; 1 + 1];\n\
                const fn c(x: u8) -> bool { x < 1 }\n\
                fn d(x: u8) { match x { 0 | 1 => {} _ => {} } }\n\
                fn e() { const F: u8 = 1 + 1; let g = [0; 1 + 1]; assert!(F < g[0]); }\n\
                #[cfg(test)]\nmod tests { fn f(x: u8) -> bool { x < 1 } }\n";
    let expected = ["a.rs:4:14 fn d -> return", "a.rs:5:9 fn e -> return"];
    assert_eq!(names(text), expected);
}

#[test]
fn conditions_that_bind_names_are_never_moved() {
    let text = "fn a(x: Option<u8>) { if let Some(y) = x && y < 3 && b() { c(y); } }\n";
    let mutants = found(text);
    assert!(mutants.iter().all(|mutant| mutant.change != "&& -> ||"));
    let schema = written(text, &mutants);
    assert!(schema.text.contains("if let Some(y) = x && (match"), "{}", schema.text);
}

#[test]
fn nested_changes_stand_in_the_original_alone() {
    let text = "fn a(x: u8, y: u8) -> bool { x < y && y > 3 }\n";
    let mutants: Vec<Mutant> =
        found(text).into_iter().filter(|mutant| mutant.form == Form::Expr).collect();
    let schema = written(text, &mutants);
    let on = "::vgship_base::mutant::on()";
    let expected = format!(
        "fn a(x: u8, y: u8) -> bool {{ (match {on} {{ 2 => ((x < y) || (y > 3)), _ => (\
         (match {on} {{ 1 => ((x) <= (y)), _ => (x < y) }}) && \
         (match {on} {{ 3 => ((y) >= (3)), _ => (y > 3) }})) }}) }}\n"
    );
    let order: Vec<&str> = mutants.iter().map(|mutant| &*mutant.change).collect();
    assert_eq!(order, ["< -> <=", "&& -> ||", "> -> >="]);
    assert_eq!(schema.text, expected);
}

#[test]
fn an_error_is_blamed_on_the_closest_switch() {
    let text = "fn a(x: u8, y: u8) -> bool { x < y && y > 3 }\n";
    let mutants: Vec<Mutant> =
        found(text).into_iter().filter(|mutant| mutant.form == Form::Expr).collect();
    let schema = written(text, &mutants);
    let at = |part: &str| {
        let start = schema.text.find(part).expect("it stands there");
        start..start + part.len()
    };
    assert_eq!(schema.blamed(&at("(x) <= (y)")), [1]);
    assert_eq!(schema.blamed(&at("(x < y) || (y > 3)")), [2]);
    assert_eq!(schema.blamed(&at("_ => (y > 3)")), [3]);
    assert_eq!(schema.blamed(&(0..2)), [0; 0]);
}

#[test]
fn statements_and_bodies_become_switches() {
    let text =
        "fn a(x: &mut Vec<u8>) -> Result<(), ()> {\n    x.clear();\n    b(x)?;\n    Ok(())\n}\n";
    let mutants = found(text);
    let changes: Vec<&str> = mutants.iter().map(|mutant| &*mutant.change).collect();
    assert_eq!(changes, ["fn a -> return Ok(())", "delete .clear()", "delete b()"]);
    let schema = written(text, &mutants);
    assert!(schema.text.contains("== 1 { return Ok(()); }"), "{}", schema.text);
    assert!(schema.text.contains("2 => {  }, _ => { x.clear(); } }"), "{}", schema.text);
}

const LISTED: &str = "fn a(x: u8) -> u8 {\n    let y = x + 1;\n    if x > 3 {\n        b(y);\n    }\n    \
                      y\n}\n";

fn cores() -> Vec<(String, String)> {
    let other = "fn other() {}".to_owned();
    vec![("agent/src/a.rs".to_owned(), LISTED.to_owned()), ("agent/src/b.rs".to_owned(), other)]
}

fn guard(find: &str, replace: &str) -> list::Guard {
    let words = |text: &str| text.to_owned();
    list::Guard {
        name: words("a guard"),
        class: words("R1"),
        file: words("a"),
        find: words(find),
        replace: words(replace),
        killers: vec![words("a_scenario")],
    }
}

#[test]
fn a_guard_takes_the_smallest_statement_or_block_around_it() {
    let inner = guard("b(y);", "").mutant(&cores()).expect("it stands there");
    assert_eq!((inner.form, &*inner.text), (Form::Stmt, ""));
    let both = guard("x > 3", "true").mutant(&cores()).expect("it stands there");
    assert_eq!(both.form, Form::Stmt);
    assert!(both.text.starts_with("if true {"));
    let whole = guard("x + 1", "x").mutant(&cores()).expect("it stands there");
    assert_eq!(whole.form, Form::Block);
    let mutants = [inner, both, whole];
    let schema = written(LISTED, &mutants);
    assert_eq!(schema.text.matches("mutant::on()").count(), 3);
    assert_eq!(schema.text.matches("let y = x + 1;").count(), 1, "once, in the original");
}

#[test]
fn a_guard_that_is_not_there_once_is_refused() {
    for (find, why) in [("gone", "0 times"), ("x", "times, not once"), ("fn a", "no body")] {
        let refused = guard(find, "").mutant(&cores()).expect_err(find);
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

#[test]
fn samples_depend_on_the_seed_alone() {
    assert_eq!(super::hash(1, "a"), super::hash(1, "a"));
    assert_ne!(super::hash(1, "a"), super::hash(2, "a"));
    let core = "agent/src/capture/source/order.rs";
    assert!(super::is_core(core) && super::is_core("agent/src/capture/source.rs"));
    for file in [
        "ship/io.rs",
        "receive/io.rs",
        "receive/journal/tests.rs",
        "capture/source/grow_tests.rs",
        "capture/nbd/job.rs",
    ] {
        assert!(!super::is_core(&format!("agent/src/{file}")), "{file}");
    }
}

/// The list that is kept means this tree: every guard and every equivalent is found.
#[test]
fn the_list_fits_the_tree() {
    let path = crate::tree::root().join("xtask/mutants.toml");
    let text = std::fs::read_to_string(path).expect("it is kept");
    let list = list::parse(&text).expect("it is a list");
    let (mutants, guards) = super::all(&list).expect("every guard is there once");
    assert!(guards == list.guard.len() && mutants.len() > guards);
    for entry in &list.equivalent {
        let means = mutants[guards..].iter().any(|mutant| entry.means(mutant));
        assert!(means, "`{}` in `{}`", entry.change, entry.line);
    }
}
