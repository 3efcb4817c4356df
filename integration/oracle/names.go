package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/solver"
	digest "github.com/opencontainers/go-digest"
)

// names makes digests readable, and knows what a build asks for to get them.
type names struct {
	name map[digest.Digest]string
}

func newNames(ops map[string]string) names {
	n := names{map[digest.Digest]string{}}
	for dgst, name := range ops {
		n.name[digest.Digest(dgst)] = name
	}
	return n
}

// op is the digest of the operation, whose first output a record's digest
// stands for. Not known of records that real builds wrote.
func (n names) op(dgst digest.Digest) (digest.Digest, bool) {
	name, ok := n.name[dgst]
	op := digest.FromString(name)
	return op, ok && solver.NewCacheKey(op, "", 0).ID == string(dgst)
}

func (n names) of(dgst digest.Digest) string {
	if name, ok := n.name[dgst]; ok {
		return name
	}
	if hex := dgst.Encoded(); len(hex) > 8 {
		return hex[:8]
	}
	return string(dgst)
}

// query is one key query that finds a class.
func (n names) query(m *model, at int) string {
	return n.asked(m, m.classes[at].digest, n.shortest(m, at))
}

// queryThrough is one that needs a certain link.
func (n names) queryThrough(m *model, at, input int, l link) string {
	inputs := n.shortest(m, at)
	inputs[input] = []link{l}
	return n.asked(m, m.classes[at].digest, inputs)
}

func (n names) shortest(m *model, at int) [][]link {
	inputs := make([][]link, len(m.classes[at].inputs))
	for input, links := range m.classes[at].inputs {
		for l := range links {
			if inputs[input] == nil || m.classes[l.to].rank < m.classes[inputs[input][0].to].rank {
				inputs[input] = []link{l}
			}
		}
	}
	return inputs
}

func (n names) asked(m *model, dgst digest.Digest, inputs [][]link) string {
	text := n.of(dgst)
	if len(inputs) == 0 {
		return text
	}
	var args []string
	for _, links := range inputs {
		var alternatives []string
		for _, l := range links {
			selector := ""
			if l.selector != "" {
				selector = "[" + l.selector + "]"
			}
			alternatives = append(alternatives, n.query(m, l.to)+selector)
		}
		slices.Sort(alternatives)
		args = append(args, strings.Join(alternatives, " | "))
	}
	return text + "(" + strings.Join(args, ", ") + ")"
}

func (n names) results(all []result) string {
	var texts []string
	for _, r := range all {
		texts = append(texts, n.result(r))
	}
	return strings.Join(texts, ", ")
}

func (n names) result(r result) string {
	var blobs []string
	for _, blob := range r.blobs {
		blobs = append(blobs, n.of(blob))
	}
	return fmt.Sprintf("%s of %s", strings.Join(blobs, "+"), r.at.UTC().Format(time.RFC3339Nano))
}
