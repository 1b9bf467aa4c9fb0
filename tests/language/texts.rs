//! Texts, lists and numbers where they once surprised: methods return what they change, a text is not compared with a
//! number in silence, and lists of numbers stand for tensors.

use crate::common::host;
use rhai::Dynamic;
use rhopo::script::lang::diagnostics::Diagnostic;

fn eval(text: &str) -> Result<Dynamic, Diagnostic> {
    let host = host();
    let source = host.loader().keep("own.rhai".into(), text.into());
    host.eval(&source)
}

/// Every line of a script holds.
fn holds(text: &str) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let value = eval(line).unwrap_or_else(|e| panic!("{line}: {} {:?}", e.message, e.hint));
        assert_eq!(value.as_bool(), Ok(true), "{line}");
    }
}

#[test]
fn methods_of_texts_change_them_and_return_them() {
    holds(
        r#"
        let t = " 2 "; t.trim() == "2" && t == "2"
        let t = " 2 "; t.trim(); t == "2"
        let t = "a,b"; t.replace(",", ";") == "a;b" && t == "a;b"
        let t = "aXa"; t.replace('X', "--") == "a--a"
        let t = "abab"; t.remove("b") == "aa" && t.remove('a') == ""
        let t = "abcdef"; t.crop(1, 2) == "bc" && t == "bc"
        let t = "abcdef"; t.crop(2..4) == "cd"
        let t = "abcdef"; t.crop(-2) == "ef"
        let t = "abc"; t.truncate(1) == "a" && t.truncate(-1) == ""
        let t = "ab"; t.pad(5, "xy") == "abxyx" && t.pad(2, '.') == "abxyx"
        let t = "ß"; t.make_upper() == "SS" && t.make_lower() == "ss"
        let row = #{ text: " x " }; row.text.trim() == "x" && row.text == "x"
        ["a ", " b"].map(|t| t.trim()) == ["a", "b"]
        "  a ".trim().to_upper() == "A"
        fmt(1.0 / 3.0, 2) == "0.33" && fmt(2, 0) == "2" && fmt(-0.5, 3) == "-0.500"
        "#,
    );
    let e = eval("const T = \" x \"; T.trim()").expect_err("a constant");
    assert_eq!(e.message, "`trim` cannot be called on a constant, which it would change");
    eval("let t = \"a\"; for i in 0..40 { t.replace(\"a\", \"aaaaaaaa\"); }").expect_err("too long");
}

#[test]
fn sorting_and_reversing_happen_in_place_and_return_the_list() {
    holds(
        r#"
        let a = [3, 1, 2]; a.sort(); a == [1, 2, 3]
        let a = [3, 1, 2]; a.sort()[0] == 1
        let a = [3, 1.5, 2]; a.sort() == [1.5, 2, 3]
        let a = ["b", "a"]; a.sort() == ["a", "b"]
        let a = [3, 1, 2]; a.sort(|x, y| y - x) == [3, 2, 1]
        let a = [0.3, 0.1]; a.sort(|x, y| x - y) == [0.1, 0.3]
        let a = [1, 3, 2]; a.sort_desc() == [3, 2, 1] && a.reverse() == [1, 2, 3] && a == [1, 2, 3]
        let a = [1, 2]; let b = a; b.reverse(); a == [1, 2]
        ["a", 1, 2.5].join("-") == "a-1-2.5"
        "#,
    );
    let e = eval("let a = [1, \"a\"]; a.sort()").expect_err("no order");
    assert!(e.message.starts_with("`sort`: ") && e.message.ends_with(" have no order"), "{}", e.message);
    assert_eq!(eval("let a = [2, 1]; a.sort(|x, y| throw \"no\")").expect_err("fails").message, "no");
    assert_eq!(eval("let a = [2, 1]; try { a.sort(|x, y| throw 1) } catch { } a[0]").expect("whole").as_int(), Ok(2));
}

#[test]
fn the_value_of_what_gives_nothing_is_refused_before_anything_runs() {
    let e = eval("print(1);\nlet a = [];\nlet b = a.push(1);").expect_err("nothing");
    assert_eq!(e.message, "`push` returns nothing, but its value is used");
    assert_eq!((e.frames[0].line, e.frames[0].column), (3, 11));
    assert_eq!(e.hint.as_deref(), Some("push in a statement of its own, or write list + [item]"));
    holds("let a = []; a.push(1); a.insert(0, 2); a.append([3]); a == [2, 1, 3]");
}

#[test]
fn a_text_is_not_compared_with_a_number() {
    for line in [
        "\"2\" == 2",
        "2 == \"2\"",
        "\"2\" != 2.0",
        "let t = \"2\"; let n = 2; t == n",
        "\"a\" < 1",
        "1 >= \"a\"",
        "for c in \"12\" { if c == 1 { } }",
        "let f = |a, b| a == b; f.call(\"1\", 1)",
    ] {
        let e = eval(line).expect_err(line);
        assert!(e.message.contains("is not defined for ("), "{line}: {}", e.message);
        assert!(e.hint.expect("a hint").starts_with("a text is never equal to a number"), "{line}");
    }
    holds(
        r#"
        let x = (); x == () && !("a" == ()) && "a" != () && 1 != ()
        "a" == 'a' && 'a' == "a" && 1 == 1.0 && "a" < "b"
        "a" != true && [1] != "a" && #{} != 1
        2 in ["1", 2] && !(2 in ["1", "2"]) && ["a", 1].index_of(1) == 1
        ["1", 2] != [1, 2] && #{ a: "1" } != #{ a: 1 }
        "#,
    );
}

#[test]
fn lists_of_numbers_stand_for_tensors() {
    holds(
        r#"
        sum([1, 2, 3]).item() == 6.0 && [1, 2, 3].mean().item() == 2.0
        max([1, 3, 2]).item() == 3.0
        (ones([2, 1]) + [1, 2]).to_array() == [[2.0], [3.0]]
        ([1, 2] * ones([2, 1])).to_array() == [[1.0], [2.0]]
        advantage::group_center([1, 0], 2).to_array() == [[0.5], [-0.5]]
        token_mean([[1, 2], [3, 9]], [[1, 1], [1, 0]]).item() == 2.0
        where([true, false], 1.0, ones([2, 1])).to_array() == [[1.0], [1.0]]
        exp(tensor([0])).to_array() == [1.0]
        [1, 2] + [3] == [1, 2, 3]
        "a" + [1] == "a[1]"
        "#,
    );
    assert_eq!(
        eval("seq_sum(ones([1, 1]), [\"a\"])").expect_err("no numbers").message,
        "`seq_sum`: mask must be a tensor, or an array of numbers, found an array"
    );
    let e = eval("[1, 2] * 2").expect_err("two plain values");
    assert!(e.hint.expect("a hint").starts_with("make a tensor of the numbers"));
}

#[test]
fn what_python_writes_gets_an_answer_that_names_rhais() {
    for (line, way) in [
        ("let x = ones([1]).clamp(0, 1);", "write clip(x, lo, hi)"),
        ("let x = ones([1]).pow(2);", "write x ** y"),
        ("let x = None;", "nothing is written ()"),
        ("let m = {a: 1};", "a map is written #{ a: 1 }"),
        ("def f(x):", "a function is written fn name(a, b)"),
        ("if true and false { }", "`and` is written &&"),
        ("let n = 1; print(f\"n is {n}\");", "a text with values in it stands between backquotes"),
        ("let b = sample(1, 2, n=4);", "arguments have no names: options come in a map"),
        ("let f = |x| x + 1; f(3)", "a closure in a variable is called by `f.call(…)`"),
        ("fn twice(f) { f(2) } twice(|x| x)", "a closure in a variable is called by `f.call(…)`"),
        ("let s = 'hello';", "a text stands in double quotes"),
        ("x = 3;", "declare it first: let x = …"),
        ("torch.zeros(3)", "functions have no prefix here"),
        ("\"%d\" % 3", "values go into a text between backquotes"),
        ("let x = ones([2, 2]); x[0, 1]", "places follow one another: x[0][1]"),
        ("let x = ones([2, 2]); x[0:1]", "a part of a list is list.extract(1..3)"),
        ("let x = ones([2, 2]); x[..., -1]", "all cells of a last axis"),
        ("let x = ones([2, 2]); x[0..1]", "x[i] is a row; gather"),
        ("[1, 2, 3][0..2]", "a part of a list is list.extract(1..3)"),
        ("ones([2, 2]).max(dim=-1)", "arguments have no names"),
        ("!ones([2])", "conditions of tensors hold 0 and 1: write 1 - x"),
        ("let x = ones([2]); x & x", "conditions of tensors hold 0 and 1: both are a * b"),
        ("ones([2]).topk(1)", "write sort(x) or argsort(x)"),
        ("with torch.no_grad():", "there is none: files close by themselves, and x.detach()"),
        ("fn f() { clip_range } args(#{ clip_range: 0.2 }); f()", "a hyper-parameter is read as cfg.clip_range"),
        ("help(sort)", "it is a function: "),
        ("help(\"sort\")", "write :help name at the prompt"),
    ] {
        let e = eval(line).expect_err(line);
        let hint = e.hint.unwrap_or_default();
        assert!(hint.starts_with(way), "{line}: {}: {hint}", e.message);
    }
}

/// The language's own comparisons look away from a relative difference of 1e-7, and find infinity equal to nothing.
#[test]
fn numbers_compare_to_the_last_bit_and_with_infinity() {
    for text in [
        "let worst = -1.0 / 0.0; 0.0 > worst && worst < 0.0 && 1 > worst && worst < 1 && worst == worst",
        "let worst = -1.0 / 0.0; !(worst > 0.0) && worst <= worst && 1.0 / 0.0 > worst",
        "0.1 + 0.2 != 0.3 && 0.1 + 0.2 > 0.3 && 0.50000001 > 0.5 && 0.5 < 0.50000001",
        "let nan = 0.0 / 0.0; nan != nan && !(nan < 1.0) && !(nan >= 1) && !(1 == nan)",
        "1 == 1.0 && 1.0 == 1 && 2 > 1.5 && 1.5 < 2 && 2.0 >= 2 && 2 <= 2.0",
    ] {
        holds(text);
    }
}
