package main

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// model is what all configs know together by BuildKit's rule of identity, taken
// to its fixed point. It is the upper bound of a union: written to be obviously
// right, and quadratic.
type model struct {
	classes []class
	// By digest, the classes that have it.
	byDigest map[digest.Digest][]int
	// Whether some class is its own ancestor.
	cyclic bool
}

// class is all records that are the same.
type class struct {
	digest digest.Digest
	// Any one link of every input leads here.
	inputs  []map[link]struct{}
	results []result
	rank    int
	// The strongly connected component: links within one may close a cycle.
	component int
	// Whether it has a result, or a link that keeps is sure of leads on to one.
	useful bool
	// The same without any link that may be part of a cycle: what a union must
	// have however it breaks cycles.
	needed bool
}

func fixedPoint(configs []json.RawMessage) *model {
	var all []record
	for _, text := range configs {
		records, _ := read(text)
		base := len(all)
		for _, r := range records {
			for _, links := range r.inputs {
				for i := range links {
					links[i].to += base
				}
			}
			all = append(all, r)
		}
	}
	return classify(all)
}

func classify(all []record) *model {
	same := make([]int, len(all))
	for i := range same {
		same[i] = i
	}
	classes := make([]*class, len(all))
	for i, r := range all {
		c := &class{digest: r.digest, results: r.results, rank: r.rank}
		for _, links := range r.inputs {
			input := map[link]struct{}{}
			for _, l := range links {
				input[l] = struct{}{}
			}
			c.inputs = append(c.inputs, input)
		}
		classes[i] = c
	}
	alike := map[digest.Digest][]int{}
	for i, r := range all {
		alike[r.digest] = append(alike[r.digest], i)
	}
	for changed := true; changed; {
		changed = false
		for _, candidates := range alike {
			for _, i := range candidates {
				for _, j := range candidates {
					if i < j && same[i] == i && same[j] == j && classes[i].meets(classes[j]) {
						classes[i].take(classes[j])
						same[j] = i
						changed = true
					}
				}
			}
		}
		for i := range same {
			for same[i] != same[same[i]] {
				same[i] = same[same[i]]
			}
		}
		for _, c := range classes {
			for input, links := range c.inputs {
				renamed := map[link]struct{}{}
				for l := range links {
					renamed[link{l.selector, same[l.to]}] = struct{}{}
				}
				c.inputs[input] = renamed
			}
		}
	}
	return number(classes, same)
}

// meets is BuildKit's rule (CacheChains.Add): the same digest, as many inputs,
// and for every input a shared link.
func (c *class) meets(other *class) bool {
	if c.digest != other.digest || len(c.inputs) != len(other.inputs) {
		return false
	}
	for i := range c.inputs {
		shared := false
		for l := range c.inputs[i] {
			_, ok := other.inputs[i][l]
			shared = shared || ok
		}
		if !shared {
			return false
		}
	}
	return true
}

func (c *class) take(other *class) {
	for i := range c.inputs {
		for l := range other.inputs[i] {
			c.inputs[i][l] = struct{}{}
		}
	}
	c.results = append(slices.Clone(c.results), other.results...)
	c.rank = min(c.rank, other.rank)
}

// newest is the time of the newest result.
func (c *class) newest() (time.Time, bool) {
	var newest time.Time
	for _, r := range c.results {
		if r.at.After(newest) {
			newest = r.at
		}
	}
	return newest, len(c.results) > 0
}

// number gives the classes that are left their indexes, and finds out what
// concerns them all.
func number(classes []*class, same []int) *model {
	m := &model{byDigest: map[digest.Digest][]int{}}
	index := make([]int, len(classes))
	for i := range classes {
		if same[i] == i {
			index[i] = len(m.classes)
			m.byDigest[classes[i].digest] = append(m.byDigest[classes[i].digest], index[i])
			m.classes = append(m.classes, *classes[i])
		}
	}
	for at := range m.classes {
		c := &m.classes[at]
		for input, links := range c.inputs {
			renamed := map[link]struct{}{}
			for l := range links {
				renamed[link{l.selector, index[l.to]}] = struct{}{}
			}
			c.inputs[input] = renamed
		}
	}
	m.cyclic = m.components()
	m.lead(func(c *class) *bool { return &c.useful }, m.keeps)
	m.lead(func(c *class) *bool { return &c.needed }, m.across)
	return m
}

// keeps is whether a link is certainly no part of a cycle. Within a component
// the links to a lower rank close none, and every input has one.
func (m *model) keeps(at int, l link) bool {
	from, to := &m.classes[at], &m.classes[l.to]
	return from.component != to.component || to.rank < from.rank
}

// across is whether a link can't be part of a cycle.
func (m *model) across(at int, l link) bool {
	return m.classes[at].component != m.classes[l.to].component
}

// lead marks what has a result, and what leads on to it by certain links.
func (m *model) lead(mark func(*class) *bool, by func(at int, l link) bool) {
	var uses func(at int)
	uses = func(at int) {
		c := &m.classes[at]
		if *mark(c) {
			return
		}
		*mark(c) = true
		for _, links := range c.inputs {
			for l := range links {
				if by(at, l) {
					uses(l.to)
				}
			}
		}
	}
	for at := range m.classes {
		if len(m.classes[at].results) > 0 {
			uses(at)
		}
	}
}

// components sets each class's strongly connected component (Tarjan), and tells
// whether one has a cycle.
func (m *model) components() bool {
	cyclic := false
	order := make([]int, len(m.classes))
	low := make([]int, len(m.classes))
	open := make([]bool, len(m.classes))
	var stack []int
	next, component := 0, 0
	var visit func(at int)
	visit = func(at int) {
		next++
		order[at], low[at], open[at] = next, next, true
		stack = append(stack, at)
		for _, links := range m.classes[at].inputs {
			for l := range links {
				if l.to == at {
					cyclic = true
				}
				if order[l.to] == 0 {
					visit(l.to)
					low[at] = min(low[at], low[l.to])
				} else if open[l.to] {
					low[at] = min(low[at], order[l.to])
				}
			}
		}
		if low[at] == order[at] {
			for size := 1; ; size++ {
				top := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				open[top] = false
				m.classes[top].component = component
				if top == at {
					cyclic = cyclic || size > 1
					break
				}
			}
			component++
		}
	}
	for at := range m.classes {
		if order[at] == 0 {
			visit(at)
		}
	}
	return cyclic
}

// union writes the model as a cache config: what is useful, free of loops, with
// the newest result of each, and one record that joins the leaves.
func (m *model) union(form string) json.RawMessage {
	index := make([]int, len(m.classes))
	var records []record
	for at := range m.classes {
		if m.classes[at].useful {
			index[at] = len(records)
			records = append(records, record{})
		}
	}
	leaf := make([]bool, len(records))
	for i := range leaf {
		leaf[i] = true
	}
	for at := range m.classes {
		c := &m.classes[at]
		if !c.useful {
			continue
		}
		r := record{digest: c.digest}
		for _, links := range c.inputs {
			var input []link
			for l := range links {
				if m.keeps(at, l) {
					input = append(input, link{l.selector, index[l.to]})
					leaf[index[l.to]] = false
				}
			}
			slices.SortFunc(input, compareLinks)
			r.inputs = append(r.inputs, input)
		}
		if newest, ok := c.newest(); ok {
			best := slices.IndexFunc(c.results, func(r result) bool { return r.at.Equal(newest) || newest.IsZero() })
			r.results = []result{c.results[best]}
		}
		records[index[at]] = r
	}
	var leaves []link
	for at := range leaf {
		if leaf[at] {
			leaves = append(leaves, link{"", at})
		}
	}
	if len(leaves) > 1 {
		records = append(records, record{digest: digest.FromString("joins the leaves"), inputs: [][]link{leaves}})
	}
	text, err := json.Marshal(write(records, form))
	if err != nil {
		panic(err)
	}
	return text
}

func compareLinks(a, b link) int {
	if a.to != b.to {
		return a.to - b.to
	}
	return strings.Compare(a.selector, b.selector)
}
