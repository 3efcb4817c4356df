package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/moby/buildkit/solver"
	digest "github.com/opencontainers/go-digest"
)

// term is a key query: an operation upon others, as a build's steps are. An
// input may be known by several keys at once, as a solver knows a step by its
// definition and by its content.
type term struct {
	digest digest.Digest
	inputs [][]use
}

type use struct {
	selector string
	of       *term
}

// ask compares the answers to random queries: to the union, to the model and to
// BuildKit's own graphs, the first and the last through the solver's cache
// manager. Queries are made from the model, and some are then spoilt.
func (c *check) ask(l *loaded, references []bound) *failure {
	if len(c.model.classes) == 0 || c.model.cyclic {
		return nil
	}
	for _, cl := range c.model.classes {
		if _, ok := c.names.op(cl.digest); !ok {
			return nil
		}
	}
	random := rand.New(rand.NewPCG(c.req.Seed, 2))
	for range c.req.Queries {
		t := c.term(random, random.IntN(len(c.model.classes)))
		if random.IntN(3) == 0 {
			c.spoil(random, t)
		}
		if failed := c.answer(t, l, references); failed != nil {
			return failed
		}
	}
	return nil
}

// term is a random query that finds a class of the model.
func (c *check) term(random *rand.Rand, at int) *term {
	cl := &c.model.classes[at]
	t := &term{digest: cl.digest}
	for _, links := range cl.inputs {
		all := make([]link, 0, len(links))
		for l := range links {
			all = append(all, l)
		}
		slices.SortFunc(all, compareLinks)
		uses := []use{}
		for range 1 + random.IntN(5)/4 {
			l := all[random.IntN(len(all))]
			uses = append(uses, use{l.selector, c.term(random, l.to)})
		}
		t.inputs = append(t.inputs, uses)
	}
	return t
}

// spoil changes one thing somewhere in a query.
func (c *check) spoil(random *rand.Rand, t *term) {
	for len(t.inputs) > 0 {
		uses := t.inputs[random.IntN(len(t.inputs))]
		u := &uses[random.IntN(len(uses))]
		switch random.IntN(5) {
		case 0:
			u.selector = "other"
			return
		case 1:
			u.of = c.term(random, random.IntN(len(c.model.classes)))
			return
		case 2:
			t.digest = c.model.classes[random.IntN(len(c.model.classes))].digest
			return
		}
		t = u.of
	}
}

func (c *check) answer(t *term, l *loaded, references []bound) *failure {
	want := c.fromModel(t)
	got, found := c.fromSolver(l, t)
	if found {
		c.hits++
	} else {
		c.misses++
	}
	var newest time.Time
	var known []result
	for at := range want {
		for _, r := range c.model.classes[at].results {
			known = append(known, r)
			if r.at.After(newest) {
				newest = r.at
			}
		}
	}
	if found {
		right := slices.ContainsFunc(known, func(r result) bool {
			return r.content() == got.ID && (r.at.Equal(got.CreatedAt) || r.at.IsZero())
		})
		if !right {
			return wrong("false hit", "asked %s: answered with %s, which no config holds for it (they hold %s)",
				c.names.term(t), got.ID, c.names.results(known))
		}
		if !newest.IsZero() && !got.CreatedAt.Equal(newest) {
			return wrong("stale", "asked %s: answered with a result of %s, the configs hold %s",
				c.names.term(t), got.CreatedAt, c.names.results(known))
		}
		return nil
	}
	for _, b := range references {
		if _, hit := c.fromSolver(b.solver, t); hit {
			return wrong("lost", "asked %s: %s answers, the union does not", c.names.term(t), b.title)
		}
	}
	if len(known) > 0 && !c.req.Lenient {
		return wrong("lost", "asked %s: the fixed point answers, the union does not", c.names.term(t))
	}
	return nil
}

// fromModel are the classes that a query finds.
func (c *check) fromModel(t *term) map[int]struct{} {
	var found map[int]struct{}
	if len(t.inputs) == 0 {
		found = map[int]struct{}{}
		for _, at := range c.model.byDigest[t.digest] {
			if len(c.model.classes[at].inputs) == 0 {
				found[at] = struct{}{}
			}
		}
		return found
	}
	for input, uses := range t.inputs {
		matched := map[int]struct{}{}
		for _, u := range uses {
			of := c.fromModel(u.of)
			for _, at := range c.model.byDigest[t.digest] {
				for from := range of {
					if input >= len(c.model.classes[at].inputs) {
						continue
					}
					if _, ok := c.model.classes[at].inputs[input][link{u.selector, from}]; ok {
						matched[at] = struct{}{}
					}
				}
			}
		}
		if found == nil {
			found = matched
			continue
		}
		for at := range found {
			if _, ok := matched[at]; !ok {
				delete(found, at)
			}
		}
	}
	return found
}

// fromSolver asks as a build does (solver/edge.go): per input for all keys that
// it is known by, then for what all inputs have in common, then for the newest
// record.
func (c *check) fromSolver(l *loaded, t *term) (*solver.CacheRecord, bool) {
	var records []*solver.CacheRecord
	for _, key := range c.keys(l, t) {
		of, err := l.manager.Records(context.Background(), key)
		if err != nil {
			panic(err)
		}
		records = append(records, of...)
	}
	if len(records) == 0 {
		return nil, false
	}
	return slices.MaxFunc(records, func(a, b *solver.CacheRecord) int { return a.CreatedAt.Compare(b.CreatedAt) }), true
}

func (c *check) keys(l *loaded, t *term) map[string]*solver.CacheKey {
	op, _ := c.names.op(t.digest)
	query := func(deps []solver.CacheKeyWithSelector, input int) map[string]*solver.CacheKey {
		found, err := l.manager.Query(deps, solver.Index(input), op, 0)
		if err != nil {
			panic(err)
		}
		keys := map[string]*solver.CacheKey{}
		for _, key := range found {
			keys[key.ID] = key
		}
		return keys
	}
	if len(t.inputs) == 0 {
		return query(nil, 0)
	}
	var found map[string]*solver.CacheKey
	for input, uses := range t.inputs {
		var deps []solver.CacheKeyWithSelector
		for _, u := range uses {
			for _, key := range c.keys(l, u.of) {
				deps = append(deps, solver.CacheKeyWithSelector{
					Selector: digest.Digest(u.selector),
					CacheKey: solver.ExportableCacheKey{CacheKey: key},
				})
			}
		}
		if len(deps) == 0 {
			return nil
		}
		matched := query(deps, input)
		if found == nil {
			found = matched
			continue
		}
		for id := range found {
			if _, ok := matched[id]; !ok {
				delete(found, id)
			}
		}
	}
	return found
}

// term is a query in readable form.
func (n names) term(t *term) string {
	if len(t.inputs) == 0 {
		return n.of(t.digest)
	}
	text := n.of(t.digest) + "("
	for input, uses := range t.inputs {
		if input > 0 {
			text += ", "
		}
		for at, u := range uses {
			if at > 0 {
				text += " | "
			}
			text += n.term(u.of)
			if u.selector != "" {
				text += "[" + u.selector + "]"
			}
		}
	}
	return text + ")"
}
