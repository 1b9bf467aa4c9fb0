//! The order of a map's keys where it came from a file or from JSON: a tag of the value, not a key of the map.
//!
//! Rhai's maps sort their keys, but a chat template writes a tool's arguments in the order of the file, and a model was
//! trained on that. The tag is the number of an order that is kept here; a value takes it along wherever it goes, and
//! whatever needs the order of keys asks [`keys`]. Maps that scripts write themselves have none, nor has a map whose
//! file sorts them.

use rhai::{Dynamic, Identifier, Map};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Keys that are kept at most, over all orders; later orders are forgotten, and their maps are sorted.
const MOST: usize = 1 << 20;

type Order = Rc<[Identifier]>;

#[derive(Default)]
struct Orders {
    /// The order of tag t at t - 1.
    all: Vec<Order>,
    tags: BTreeMap<Order, i32>,
    kept: usize,
}

thread_local! {
    /// Values of scripts never leave their thread.
    static ORDERS: RefCell<Orders> = RefCell::default();
}

/// A map whose keys stand in the order given; the last one of a name counts.
pub fn map(entries: impl IntoIterator<Item = (Identifier, Dynamic)>) -> Dynamic {
    let (mut map, mut order) = (Map::new(), Vec::new());
    for (key, value) in entries {
        if map.insert(key.clone(), value).is_none() {
            order.push(key);
        }
    }
    let mut value = Dynamic::from_map(map);
    if !order.is_sorted() {
        value.set_tag(tag(order.into()) as _);
    }
    value
}

/// The keys of a map in its order; those that were added to it later follow, sorted.
pub fn keys<'a>(value: &Dynamic, map: &'a Map) -> Vec<&'a Identifier> {
    let tag = if value.is_shared() { value.flatten_clone().tag() } else { value.tag() };
    let order = ORDERS.with_borrow(|orders| orders.all.get((tag as usize).wrapping_sub(1)).cloned());
    let Some(order) = order else { return map.keys().collect() };
    let first = order.iter().filter_map(|key| map.get_key_value(key).map(|(key, _)| key));
    let later = map.keys().filter(|key| !order.contains(key));
    first.chain(later).collect()
}

fn tag(order: Order) -> i32 {
    ORDERS.with_borrow_mut(|orders| {
        if let Some(tag) = orders.tags.get(&order) {
            return *tag;
        }
        orders.kept += order.len();
        if orders.kept > MOST {
            return 0;
        }
        orders.all.push(order.clone());
        let tag = orders.all.len() as i32;
        orders.tags.insert(order, tag);
        tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(value: &Dynamic) -> Vec<String> {
        keys(value, &value.as_map_ref().expect("a map")).into_iter().map(|key| key.to_string()).collect()
    }

    #[test]
    fn keys_keep_their_order_and_later_ones_follow() {
        let entries = ["zoo", "apple", "m"].map(|key| (key.into(), Dynamic::ONE));
        let mut value = map(entries);
        assert_eq!(names(&value), ["zoo", "apple", "m"]);
        value.as_map_mut().expect("a map").remove("apple");
        value.as_map_mut().expect("a map").extend(["new", "b"].map(|key| (key.into(), Dynamic::ONE)));
        assert_eq!(names(&value), ["zoo", "m", "b", "new"]);
        assert_eq!(names(&value.clone().into_shared()), ["zoo", "m", "b", "new"], "what a closure captures as well");
        assert_eq!(names(&map([("a".into(), Dynamic::ONE), ("b".into(), Dynamic::ONE)])), ["a", "b"]);
        let mut other = value.clone();
        other.set_tag(1 << 14);
        assert_eq!(names(&other), ["b", "m", "new", "zoo"], "a tag that a script made up");
    }
}
