//! Arrays in scripts: sorting, and what the language itself does with them; `pages/arrays.md` says what each means.

use crate::error::{Error, Result};
use crate::script::lang::native::{Call, Fallible, Registry, number};
use crate::script::lang::value::describe;
use rhai::{Array, Dynamic, FnPtr, ImmutableString};
use std::cmp::Ordering;

pub fn register(reg: &mut Registry) {
    reg.in_place("sort", [], |list: &mut Array| sorted(list, natural));
    reg.form_in_place(["compare"], by_closure);
    reg.in_place("sort_by", ["compare"], by_closure);
    reg.in_place("sort_desc", [], |list: &mut Array| sorted(list, |a, b| natural(b, a)));
    reg.in_place("reverse", [], |list: &mut Array| {
        list.reverse();
        list.clone()
    });
    reg.function("join", ["list", "between"], |list: Array, between: ImmutableString| joined(&list, &between));
    of_the_language(reg);
}

fn of_the_language(reg: &mut Registry) {
    reg.of_the_language::<Array>("len", &[], "int");
    reg.of_the_language::<Array>("is_empty", &[], "bool");
    reg.of_the_language::<Array>("push", &[("item", "any")], "");
    reg.of_the_language::<Array>("append", &[("other", "array")], "");
    reg.of_the_language::<Array>("insert", &[("at", "int"), ("item", "any")], "");
    reg.of_the_language::<Array>("pop", &[], "any");
    reg.of_the_language::<Array>("shift", &[], "any");
    reg.of_the_language::<Array>("remove", &[("at", "int")], "any");
    reg.of_the_language::<Array>("clear", &[], "");
    reg.of_the_language::<Array>("extract", &[("start", "int | range"), ("len?", "int")], "array");
    reg.of_the_language::<Array>("contains", &[("value", "any")], "bool");
    reg.of_the_language::<Array>("index_of", &[("value", "any"), ("start?", "int")], "int");
    reg.of_the_language::<Array>("map", &[("f", "Fn")], "array");
    reg.of_the_language::<Array>("filter", &[("test", "Fn")], "array");
    reg.of_the_language::<Array>("reduce", &[("f", "Fn"), ("start?", "any")], "any");
    reg.of_the_language::<Array>("find", &[("test", "Fn"), ("start?", "int")], "any");
    reg.of_the_language::<Array>("some", &[("test", "Fn")], "bool");
    reg.of_the_language::<Array>("all", &[("test", "Fn")], "bool");
    reg.of_the_language::<Array>("for_each", &[("f", "Fn")], "");
}

fn by_closure(call: &Call, list: &mut Array, compare: FnPtr) -> Fallible<Array> {
    sorted(list, |a, b| -> Fallible<Ordering> {
        let answer = compare.call_raw(call.context, None, [a.clone(), b.clone()])?;
        Ok(order_of(&answer)?)
    })
}

/// What a closure that compares says: a number below, at or above 0, or whether they stand in order as they are.
fn order_of(answer: &Dynamic) -> Result<Ordering> {
    let in_order = answer.as_bool().ok().map(|fits| if fits { Ordering::Less } else { Ordering::Greater });
    let sign = number(answer).and_then(|x| x.partial_cmp(&0.0));
    sign.or(in_order).ok_or_else(|| {
        Error::value(format!("`sort`: the closure must return a number, found {}", describe(answer)))
            .hint("below 0 where the first comes before the second, above 0 where it comes behind: |a, b| a - b")
    })
}

/// Numbers by value, texts and chars by their letters, false before true.
fn natural(a: &Dynamic, b: &Dynamic) -> Result<Ordering> {
    if let (Ok(a), Ok(b)) = (a.as_int(), b.as_int()) {
        return Ok(a.cmp(&b));
    }
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(a.total_cmp(&b));
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
        return Ok(a.cmp(&b));
    }
    if let (Ok(a), Ok(b)) = (a.as_char(), b.as_char()) {
        return Ok(a.cmp(&b));
    }
    if let (Ok(a), Ok(b)) = (a.as_bool(), b.as_bool()) {
        return Ok(a.cmp(&b));
    }
    if a.is_unit() && b.is_unit() {
        return Ok(Ordering::Equal);
    }
    let what = format!("`sort`: {} and {} have no order", describe(a), describe(b));
    Err(Error::value(what).hint("give a closure that compares: list.sort(|a, b| a.score - b.score)"))
}

/// Puts a list in order, equal ones as they were, and returns it. A comparison that fails leaves it as it was.
fn sorted<E>(list: &mut Array, compare: impl Fn(&Dynamic, &Dynamic) -> std::result::Result<Ordering, E>) -> Outcome<E> {
    let mut order: Vec<usize> = (0..list.len()).collect();
    let mut from = order.clone();
    let mut width = 1;
    // Merging, and not the library's sort: closures may compare without rhyme or reason, or fail.
    while width < order.len() {
        std::mem::swap(&mut order, &mut from);
        for start in (0..from.len()).step_by(2 * width) {
            let (middle, end) = ((start + width).min(from.len()), (start + 2 * width).min(from.len()));
            let (mut left, mut right) = (start, middle);
            for slot in &mut order[start..end] {
                let take_left = left < middle
                    && (right == end || compare(&list[from[left]], &list[from[right]])? != Ordering::Greater);
                let taken = if take_left { &mut left } else { &mut right };
                *slot = from[*taken];
                *taken += 1;
            }
        }
        width *= 2;
    }
    *list = order.into_iter().map(|i| list[i].clone()).collect();
    Ok(list.clone())
}

type Outcome<E> = std::result::Result<Array, E>;

/// The entries as texts, one behind the other.
fn joined(list: &Array, between: &str) -> Result<String> {
    let text = |item: &Dynamic| match item.is_string() || item.is_char() || item.is_int() || item.is_float() {
        true => Ok(item.to_string()),
        false => Err(Error::value(format!("`join` puts texts and numbers together, found {} in it", describe(item)))
            .hint("make texts of them first: list.map(|item| item.to_string())")),
    };
    Ok(list.iter().map(text).collect::<Result<Vec<_>>>()?.join(between))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::INT;

    fn ints(list: &[INT]) -> Array {
        list.iter().map(|&i| Dynamic::from(i)).collect()
    }

    #[test]
    fn lists_of_every_length_are_put_in_order() {
        for length in 0..40 {
            let mut list = ints(&(0..length).map(|i| (i * 7919) % 31).collect::<Vec<_>>());
            let mut expected: Vec<INT> = list.iter().map(|x| x.as_int().expect("an int")).collect();
            expected.sort_unstable();
            let returned = sorted(&mut list, natural).expect("ints have an order");
            let found = |list: &Array| list.iter().map(|x| x.as_int().expect("an int")).collect::<Vec<_>>();
            assert_eq!((found(&list), found(&returned)), (expected.clone(), expected));
        }
    }

    #[test]
    fn equal_ones_stay_as_they_were() {
        let mut list: Array = ["b1", "a1", "b2", "a2"].iter().map(|&text| Dynamic::from(text)).collect();
        let first = |x: &Dynamic| x.to_string().chars().next();
        sorted(&mut list, |a, b| Ok::<_, ()>(first(a).cmp(&first(b)))).expect("an order");
        assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a1", "a2", "b1", "b2"]);
    }

    #[test]
    fn a_comparison_that_fails_leaves_the_list_as_it_was() {
        let mut list = ints(&[3, 1, 2]);
        sorted(&mut list, |_, b| if b.as_int() == Ok(2) { Err(()) } else { Ok(Ordering::Greater) }).expect_err("fails");
        assert_eq!(list.iter().map(|x| x.as_int().expect("an int")).collect::<Vec<_>>(), [3, 1, 2]);
    }
}
