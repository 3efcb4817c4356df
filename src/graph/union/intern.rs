//! Values held once and named by a number, and lists of them in few bytes.

use std::collections::HashMap;
use std::hash::Hash;

/// No number.
pub(super) const NONE: u32 = u32::MAX;

/// Each distinct value once, numbered in the order of arrival.
#[derive(Clone, Debug)]
pub(super) struct Interner<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// The value's number, and whether it is new.
    pub(super) fn intern(&mut self, value: T) -> (u32, bool) {
        let next = self.values.len() as u32;
        let number = *self.numbers.entry(value.clone()).or_insert(next);
        let new = number == next;
        if new {
            self.values.push(value);
        }
        (number, new)
    }

    /// The value's number.
    pub(super) fn number(&mut self, value: T) -> u32 {
        self.intern(value).0
    }

    /// Every value, by number.
    pub(super) fn values(&self) -> &[T] {
        &self.values
    }
}

impl<T> std::ops::Index<u32> for Interner<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}

/// Many short lists in one allocation, each known by its head.
#[derive(Clone, Debug)]
pub(super) struct Lists<T> {
    cells: Vec<(T, u32)>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { cells: Vec::new() }
    }
}

impl<T: Copy> Lists<T> {
    /// Puts a value in front; an empty list's head is [`NONE`]. Returns where
    /// it stands.
    pub(super) fn push(&mut self, head: &mut u32, value: T) -> u32 {
        self.cells.push((value, *head));
        *head = self.cells.len() as u32 - 1;
        *head
    }

    /// The values of a list.
    pub(super) fn iter(&self, head: u32) -> impl Iterator<Item = T> {
        let mut at = head;
        std::iter::from_fn(move || {
            let &(value, next) = self.cells.get(at as usize)?;
            at = next;
            Some(value)
        })
    }

    /// Lets a list hold these instead, which must be no more than it has.
    pub(super) fn rewrite(&mut self, head: u32, values: &[T]) {
        let (mut at, mut left) = (head as usize, values);
        while let Some((&value, rest)) = left.split_first() {
            self.cells[at].0 = value;
            left = rest;
            if rest.is_empty() {
                self.cells[at].1 = NONE;
            }
            at = self.cells[at].1 as usize;
        }
    }

    /// The value that stands there.
    pub(super) fn at(&mut self, place: u32) -> &mut T {
        &mut self.cells[place as usize].0
    }
}
