package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	spec "github.com/moby/buildkit/cache/remotecache/v1/types"
)

// failure is what is wrong with a union:
//
//	malformed   BuildKit or the reader refuses it, or a part of it
//	open        two of its records are the same, so that order decides
//	cyclic      a record is its own ancestor
//	false hit   it answers what no config and no union of them could
//	lost        it does not answer what the configs together answer
//	stale       it answers with a result that is not the newest
//	reference   BuildKit disagrees with the model: the oracle is wrong
type failure struct {
	kind   string
	detail string
}

func wrong(kind, format string, args ...any) *failure {
	return &failure{kind, fmt.Sprintf(format, args...)}
}

// check compares a union with two bounds.
//
// Records are compared instead of queries: if every record of one graph has a
// counterpart in the other, with the same digest and, for each link, the same
// link to the counterpart, then whatever query finds the first finds the
// second. So from the union to the model there are no false hits, and from
// BuildKit's own graphs to the union there are no losses, for all queries
// there are. Random queries, asked through the solver's own cache manager,
// then hold the argument itself.
type check struct {
	req          *request
	model        *model
	names        names
	hits, misses int
}

func (c *check) run() *failure {
	var union spec.CacheConfig
	if err := json.Unmarshal(c.req.Union, &union); err != nil {
		return wrong("malformed", "the union is no cache config: %v", err)
	}
	if failed := c.sound(union); failed != nil {
		return failed
	}
	references, failed := c.references()
	if failed != nil {
		return failed
	}
	for range max(c.req.Loads, 1) {
		l, err := load(union)
		if err != nil {
			return wrong("malformed", "BuildKit does not load the union: %v", err)
		}
		if failed := c.compare(l, references); failed != nil {
			return failed
		}
		if failed := c.ask(l, references); failed != nil {
			return failed
		}
	}
	return nil
}

// sound is what must hold before BuildKit may load it: that also keeps its
// recursion from running in circles.
func (c *check) sound(union spec.CacheConfig) *failure {
	records, whole := stand(union)
	if !whole {
		return wrong("malformed", "%d of %d records of the union stand, or a layer or link is dangling", len(records), len(union.Records))
	}
	classes := classify(records)
	if classes.cyclic {
		return wrong("cyclic", "a record of the union is its own ancestor")
	}
	if len(classes.classes) != len(records) {
		return wrong("open", "the union has %d records, of which %d are not the same as another", len(records), len(classes.classes))
	}
	return nil
}

// bound is what one of BuildKit's own graphs answers, in the model's terms.
type bound struct {
	title   string
	records []record
	class   []int
	solver  *loaded
}

// references are BuildKit's graphs of the configs, in several orders.
func (c *check) references() ([]bound, *failure) {
	var configs []spec.CacheConfig
	for _, text := range c.req.Configs {
		records, whole := read(text)
		var config spec.CacheConfig
		if whole && !classify(records).cyclic && json.Unmarshal(text, &config) == nil {
			configs = append(configs, config)
			continue
		}
		// BuildKit refuses all of it; what can stand is still worth something.
		for at := range records {
			for input, links := range records[at].inputs {
				var kept []link
				for _, l := range links {
					if records[l.to].rank < records[at].rank {
						kept = append(kept, l)
					}
				}
				records[at].inputs[input] = kept
			}
		}
		configs = append(configs, write(records, "layers"))
	}
	random := rand.New(rand.NewPCG(c.req.Seed, 1))
	var bounds []bound
	for order := range max(c.req.Orders, 1) {
		if order > 0 {
			random.Shuffle(len(configs), func(i, j int) { configs[i], configs[j] = configs[j], configs[i] })
		}
		r, err := inOrder(configs)
		if err != nil {
			return nil, wrong("reference", "BuildKit does not parse the configs: %v", err)
		}
		b := bound{title: fmt.Sprintf("BuildKit, order %d", order)}
		if b.records, err = r.records(); err != nil {
			return nil, wrong("reference", "BuildKit does not write its graph: %v", err)
		}
		var failed *failure
		if b.class, failed = c.place(b.records); failed != nil {
			return nil, wrong("reference", "%s: %s", b.title, failed.detail)
		}
		if !c.model.cyclic {
			if b.solver, err = r.joined(); err != nil {
				return nil, wrong("reference", "BuildKit does not load its graph: %v", err)
			}
		}
		bounds = append(bounds, b)
	}
	return bounds, nil
}

// place finds each record's class: the one that has its digest and all its
// links. There is at most one with as many inputs, since two would share a link
// for every input. Records that no query can find have the class -1.
func (c *check) place(records []record) ([]int, *failure) {
	class := make([]int, len(records))
	done := make([]bool, len(records))
	for i := range class {
		class[i] = -1
	}
	for left := true; left; {
		left = false
		for at := range records {
			if done[at] || !ready(records[at], done) {
				continue
			}
			done[at], left = true, true
			var failed *failure
			if class[at], failed = c.classOf(records[at], class); failed != nil {
				return nil, failed
			}
		}
	}
	return class, nil
}

func ready(r record, done []bool) bool {
	for _, links := range r.inputs {
		for _, l := range links {
			if !done[l.to] {
				return false
			}
		}
	}
	return true
}

func (c *check) classOf(r record, class []int) (int, *failure) {
	if r.digest == "" {
		return -1, nil
	}
	seen := make([][]link, len(r.inputs))
	whole := true
	for input, links := range r.inputs {
		for _, l := range links {
			if class[l.to] >= 0 {
				seen[input] = append(seen[input], link{l.selector, class[l.to]})
			}
		}
		whole = whole && len(seen[input]) > 0
	}
	candidates := c.model.byDigest[r.digest]
	found := -1
	for _, at := range candidates {
		candidate := &c.model.classes[at]
		if len(candidate.inputs) < len(seen) || !has(candidate, seen) {
			continue
		}
		if len(candidate.inputs) > len(seen) || !whole {
			whole = false
			continue
		}
		found = at
	}
	switch {
	case found >= 0:
		return found, c.held(r, found)
	case !whole:
		return -1, nil
	case len(candidates) == 0 && len(r.results) == 0:
		// No build asks for a digest that no config has: the joining record.
		return -1, nil
	default:
		return -1, wrong("false hit", "no config, nor all together, could answer %s", c.names.asked(c.model, r.digest, seen))
	}
}

func has(candidate *class, seen [][]link) bool {
	for input, links := range seen {
		for _, l := range links {
			if _, ok := candidate.inputs[input][l]; !ok {
				return false
			}
		}
	}
	return true
}

// held is whether the results of a record are all its class's own.
func (c *check) held(r record, at int) *failure {
	for _, got := range r.results {
		known := false
		for _, want := range c.model.classes[at].results {
			known = known || want.content() == got.content() && (want.at.Equal(got.at) || want.at.IsZero())
		}
		if !known {
			return wrong("false hit", "%s is answered with %s, which no config holds for it (they hold %s)",
				c.names.query(c.model, at), c.names.result(got), c.names.results(c.model.classes[at].results))
		}
	}
	return nil
}

func (c *check) compare(l *loaded, references []bound) *failure {
	records, err := l.graph()
	if err != nil {
		return wrong("malformed", "%v", err)
	}
	class, failed := c.place(records)
	if failed != nil {
		return failed
	}
	served := make(map[int]*record, len(records))
	linked := map[int][]map[link]struct{}{}
	for at := range records {
		if class[at] < 0 {
			continue
		}
		if served[class[at]] != nil {
			return wrong("open", "two records of the union answer %s", c.names.query(c.model, class[at]))
		}
		served[class[at]] = &records[at]
		inputs := make([]map[link]struct{}, len(records[at].inputs))
		for input, links := range records[at].inputs {
			inputs[input] = map[link]struct{}{}
			for _, l := range links {
				if class[l.to] >= 0 {
					inputs[input][link{l.selector, class[l.to]}] = struct{}{}
				}
			}
		}
		linked[class[at]] = inputs
	}
	s := &heldBy{check: c, records: served, links: linked}
	for _, b := range references {
		if failed := s.answersAll(b); failed != nil {
			return failed
		}
	}
	if c.req.Lenient {
		return nil
	}
	return s.isFixedPoint()
}

// heldBy is a union by the classes of the model.
type heldBy struct {
	check   *check
	records map[int]*record
	links   map[int][]map[link]struct{}
}

// answersAll is whether the union answers all that one of BuildKit's graphs
// does. What leads to no result is no answer.
func (s *heldBy) answersAll(b bound) *failure {
	useful := make([]bool, len(b.records))
	var uses func(at int)
	uses = func(at int) {
		if useful[at] {
			return
		}
		useful[at] = true
		for _, links := range b.records[at].inputs {
			for _, l := range links {
				if b.class[l.to] >= 0 && s.check.model.across(b.class[at], link{"", b.class[l.to]}) {
					uses(l.to)
				}
			}
		}
	}
	for at := range b.records {
		if len(b.records[at].results) > 0 && b.class[at] >= 0 {
			uses(at)
		}
	}
	for at, r := range b.records {
		if !useful[at] || b.class[at] < 0 {
			continue
		}
		if failed := s.has(b.title, b.class[at], len(r.results) > 0); failed != nil {
			return failed
		}
		for input, links := range r.inputs {
			for _, l := range links {
				if b.class[l.to] < 0 {
					continue
				}
				if failed := s.hasLink(b.title, b.class[at], input, link{l.selector, b.class[l.to]}); failed != nil {
					return failed
				}
			}
		}
	}
	return nil
}

// isFixedPoint is whether the union answers all that the model does.
func (s *heldBy) isFixedPoint() *failure {
	const title = "the fixed point"
	for at := range s.check.model.classes {
		c := &s.check.model.classes[at]
		if !c.needed {
			continue
		}
		if failed := s.has(title, at, len(c.results) > 0); failed != nil {
			return failed
		}
		for input, links := range c.inputs {
			for l := range links {
				if failed := s.hasLink(title, at, input, l); failed != nil {
					return failed
				}
			}
		}
	}
	return nil
}

func (s *heldBy) has(title string, at int, answered bool) *failure {
	m, names := s.check.model, s.check.names
	r := s.records[at]
	if r == nil {
		return wrong("lost", "%s answers %s, the union does not", title, names.query(m, at))
	}
	if !answered {
		return nil
	}
	if len(r.results) == 0 {
		return wrong("lost", "%s has a result for %s, the union has none", title, names.query(m, at))
	}
	newest, _ := m.classes[at].newest()
	got := r.results[0].at
	for _, res := range r.results {
		if res.at.After(got) {
			got = res.at
		}
	}
	if !newest.IsZero() && !got.Equal(newest) {
		return wrong("stale", "%s is answered with %s, the configs hold %s",
			names.query(m, at), names.results(r.results), names.results(m.classes[at].results))
	}
	return nil
}

func (s *heldBy) hasLink(title string, at, input int, l link) *failure {
	m, names := s.check.model, s.check.names
	// Which link of a cycle goes is for the union to decide; place has made
	// sure that the record is still found.
	if !m.across(at, l) {
		return nil
	}
	if inputs := s.links[at]; input < len(inputs) {
		if _, ok := inputs[input][l]; ok {
			return nil
		}
	}
	return wrong("lost", "%s answers %s, the union does not", title, names.queryThrough(m, at, input, l))
}
