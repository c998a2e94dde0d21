//! Finds what can be mutated in a source file: operators, conditions, calls without a result, and
//! whole bodies. Tests, constants, types, patterns and the insides of macros are left alone.

use std::ops::Range;

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ReturnType, Stmt, Type, UnOp};

use super::place::{Form, Mutant, line_and_column, line_of};

/// All mutants of a file. `short` is how names call the file.
///
/// # Errors
/// When it is no Rust source.
pub fn find(file: &str, short: &str, text: &str) -> Result<Vec<Mutant>> {
    let parsed = syn::parse_file(text).with_context(|| format!("cannot read {file} as Rust"))?;
    let mut finder = Finder { file, short, text, found: Vec::new() };
    finder.visit_file(&parsed);
    let mut found = finder.found;
    found.sort_by_key(|mutant| (mutant.range.start, mutant.range.end));
    Ok(found)
}

struct Finder<'a> {
    file: &'a str,
    short: &'a str,
    text: &'a str,
    found: Vec<Mutant>,
}

impl Finder<'_> {
    fn text(&self, node: &impl Spanned) -> &str {
        &self.text[node.span().byte_range()]
    }

    fn add(&mut self, range: Range<usize>, at: usize, form: Form, change: &str, text: String) {
        let (line, column) = line_and_column(self.text, at);
        self.found.push(Mutant {
            name: format!("{}:{line}:{column} {change}", self.short),
            file: self.file.to_owned(),
            range,
            form,
            text,
            line: line_of(self.text, at).to_owned(),
            change: change.to_owned(),
        });
    }

    /// A part of an expression becomes another.
    fn expr(&mut self, node: &impl Spanned, at: usize, change: &str, text: String) {
        self.add(node.span().byte_range(), at, Form::Expr, change, text);
    }

    /// A condition that has no operator of its own is turned round.
    fn truth(&mut self, condition: &Expr) {
        let plain = match condition {
            Expr::MethodCall(call) => opposite(&call.method.to_string()).is_none(),
            Expr::Call(_) | Expr::Path(_) | Expr::Field(_) | Expr::Macro(_) => true,
            _ => false,
        };
        if plain {
            let range = condition.span().byte_range();
            let text = format!("!({})", self.text(condition));
            self.expr(condition, range.start, "condition -> !condition", text);
        }
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if block.stmts.is_empty() {
            return;
        }
        let at = block.brace_token.span.open().byte_range().end;
        for result in results(&signature.output) {
            let (result, semi) = (result.trim(), if result.is_empty() { "" } else { " " });
            let change = format!("fn {} -> return{semi}{result}", signature.ident);
            self.add(at..at, at, Form::Entry, &change, format!("return {result};"));
        }
    }
}

/// What a body is replaced by.
fn results(output: &ReturnType) -> &'static [&'static str] {
    let ReturnType::Type(_, kind) = output else { return &[""] };
    let Type::Path(path) = &**kind else { return &[] };
    let Some(last) = path.path.segments.last() else { return &[] };
    let first_argument = || match &last.arguments {
        syn::PathArguments::AngleBracketed(list) => list.args.first(),
        _ => None,
    };
    match last.ident.to_string().as_str() {
        "bool" => &["true", "false"],
        "Option" => &["None"],
        "u8" | "u16" | "u32" | "u64" | "usize" | "Vec" | "Completion" => &["Default::default()"],
        "Seq" => &["Seq::ZERO"],
        "Result" => match first_argument() {
            Some(syn::GenericArgument::Type(Type::Tuple(unit))) if unit.elems.is_empty() => {
                &["Ok(())"]
            }
            _ => &[],
        },
        _ => &[],
    }
}

/// A method whose meaning is the opposite, with the same types.
fn opposite(method: &str) -> Option<&'static str> {
    Some(match method {
        "max" => "min",
        "min" => "max",
        "any" => "all",
        "all" => "any",
        "is_some" => "is_none",
        "is_none" => "is_some",
        "is_some_and" => "is_none_or",
        "is_none_or" => "is_some_and",
        "is_ok" => "is_err",
        "is_err" => "is_ok",
        _ => return None,
    })
}

fn swapped(op: BinOp) -> Option<(&'static str, &'static str)> {
    Some(match op {
        BinOp::Lt(_) => ("<", "<="),
        BinOp::Le(_) => ("<=", "<"),
        BinOp::Gt(_) => (">", ">="),
        BinOp::Ge(_) => (">=", ">"),
        BinOp::Eq(_) => ("==", "!="),
        BinOp::Ne(_) => ("!=", "=="),
        BinOp::And(_) => ("&&", "||"),
        BinOp::Or(_) => ("||", "&&"),
        BinOp::Add(_) => ("+", "-"),
        BinOp::Sub(_) => ("-", "+"),
        BinOp::Mul(_) => ("*", "/"),
        BinOp::Div(_) => ("/", "*"),
        BinOp::Rem(_) => ("%", "/"),
        BinOp::Shl(_) => ("<<", ">>"),
        BinOp::Shr(_) => (">>", "<<"),
        BinOp::BitAnd(_) => ("&", "|"),
        BinOp::BitOr(_) => ("|", "&"),
        BinOp::AddAssign(_) => ("+=", "-="),
        BinOp::SubAssign(_) => ("-=", "+="),
        BinOp::BitAndAssign(_) => ("&=", "|="),
        BinOp::BitOrAssign(_) => ("|=", "&="),
        _ => return None,
    })
}

/// Whether a condition binds names: such a chain is no expression that could be moved.
pub fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(both) => binds(&both.left) || binds(&both.right),
        _ => false,
    }
}

fn is_one(expr: &Expr) -> bool {
    matches!(expr, Expr::Lit(literal)
        if matches!(&literal.lit, syn::Lit::Int(number) if number.base10_digits() == "1"))
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Mod(module) if is_test(&module.attrs) => {}
            syn::Item::Fn(function) if is_test(&function.attrs) => {}
            syn::Item::Impl(implementation) if is_test(&implementation.attrs) => {}
            syn::Item::Const(_) | syn::Item::Static(_) | syn::Item::Enum(_) => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if function.sig.constness.is_none() {
            self.body(&function.sig, &function.block);
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.sig.constness.is_none() && !is_test(&function.attrs) {
            self.body(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}

    fn visit_type(&mut self, _: &'ast Type) {}

    fn visit_pat(&mut self, _: &'ast syn::Pat) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt {
            let called = match expr {
                Expr::Try(tried) => &*tried.expr,
                other => other,
            };
            let deleted = match called {
                Expr::MethodCall(call) => format!("delete .{}()", call.method),
                Expr::Call(call) => format!("delete {}()", self.text(&*call.func)),
                Expr::Assign(assign) => format!("delete {} = ..", self.text(&*assign.left)),
                _ => String::new(),
            };
            if !deleted.is_empty() {
                let range = stmt.span().byte_range();
                let at = range.start;
                self.add(range, at, Form::Stmt, &deleted, String::new());
            }
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        self.truth(&branch.cond);
        visit::visit_expr_if(self, branch);
    }

    fn visit_expr_while(&mut self, turn: &'ast syn::ExprWhile) {
        self.truth(&turn.cond);
        visit::visit_expr_while(self, turn);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let Some((_, guard)) = &arm.guard {
            self.truth(guard);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_binary(&mut self, both: &'ast syn::ExprBinary) {
        if matches!(both.op, BinOp::And(_) | BinOp::Or(_)) {
            self.truth(&both.left);
            self.truth(&both.right);
        }
        let chain = binds(&both.left) || binds(&both.right);
        if let Some((from, to)) = swapped(both.op).filter(|_| !chain) {
            let at = both.op.span().byte_range().start;
            let (left, right) = (self.text(&*both.left), self.text(&*both.right));
            if matches!(both.op, BinOp::Add(_) | BinOp::Sub(_)) && is_one(&both.right) {
                let text = left.to_owned();
                self.expr(both, at, &format!("{from} 1 -> nothing"), text);
            } else if to.ends_with('=') && both_is_assignment(both.op) {
                let text = format!("{left} {to} {right}");
                self.expr(both, at, &format!("{from} -> {to}"), text);
            } else {
                let text = format!("({left}) {to} ({right})");
                self.expr(both, at, &format!("{from} -> {to}"), text);
            }
        }
        visit::visit_expr_binary(self, both);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        if matches!(unary.op, UnOp::Not(_)) {
            let text = self.text(&*unary.expr).to_owned();
            self.expr(unary, unary.span().byte_range().start, "! -> nothing", text);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        if let Some(to) = opposite(&method) {
            let name = call.method.span().byte_range();
            let whole = call.span().byte_range();
            let text = format!(
                "{}{to}{}",
                &self.text[whole.start..name.start],
                &self.text[name.end..whole.end]
            );
            self.expr(call, name.start, &format!(".{method} -> .{to}"), text);
        }
        visit::visit_expr_method_call(self, call);
    }
}

fn both_is_assignment(op: BinOp) -> bool {
    matches!(
        op,
        BinOp::AddAssign(_) | BinOp::SubAssign(_) | BinOp::BitAndAssign(_) | BinOp::BitOrAssign(_)
    )
}
