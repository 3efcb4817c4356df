package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	spec "github.com/moby/buildkit/cache/remotecache/v1/types"
	digest "github.com/opencontainers/go-digest"
)

// record is a cache record with its links by index into the same list.
type record struct {
	digest  digest.Digest
	inputs  [][]link
	results []result
	// The length of its shortest derivation from roots: every input has a link
	// to a record of lower rank.
	rank int
}

type link struct {
	selector string
	to       int
}

// result is a chain of layers, the lowest first.
type result struct {
	blobs []digest.Digest
	at    time.Time
}

// content names a result's layers just as BuildKit's remoteID does, so that
// what BuildKit loaded can be compared.
func (r result) content() string {
	hash := sha256.New()
	for _, blob := range r.blobs {
		hash.Write([]byte(blob))
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}

// read takes of a config what can stand: a record that is random, or that has
// an input with no link to a record that stands, is left out, and so are links
// and layers that point nowhere. The second result is whether all of it stood.
func read(text []byte) ([]record, bool) {
	var config spec.CacheConfig
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, false
	}
	return stand(config)
}

func stand(config spec.CacheConfig) ([]record, bool) {
	whole := true
	rank := make([]int, len(config.Records))
	alive := 0
	for round := 1; ; round++ {
		grown := alive
		for i, rec := range config.Records {
			if rank[i] != 0 || strings.HasPrefix(string(rec.Digest), "random:") {
				continue
			}
			stands := true
			for _, alternatives := range rec.Inputs {
				found := false
				for _, in := range alternatives {
					at := in.LinkIndex
					found = found || at >= 0 && at < len(rank) && rank[at] != 0 && rank[at] < round
				}
				stands = stands && found
			}
			if stands {
				rank[i] = round
				alive++
			}
		}
		if alive == grown {
			break
		}
	}
	whole = alive == len(config.Records)

	index := make([]int, len(config.Records))
	for i, next := 0, 0; i < len(index); i++ {
		if rank[i] != 0 {
			index[i] = next
			next++
		}
	}
	records := make([]record, 0, alive)
	for i, rec := range config.Records {
		if rank[i] == 0 {
			continue
		}
		r := record{digest: rec.Digest, rank: rank[i], inputs: make([][]link, len(rec.Inputs))}
		for input, alternatives := range rec.Inputs {
			for _, in := range alternatives {
				if in.LinkIndex < 0 || in.LinkIndex >= len(rank) || rank[in.LinkIndex] == 0 {
					whole = false
					continue
				}
				r.inputs[input] = append(r.inputs[input], link{in.Selector, index[in.LinkIndex]})
			}
		}
		for _, res := range rec.Results {
			blobs, ok := withParents(config.Layers, res.LayerIndex)
			whole = whole && ok
			if ok {
				r.results = append(r.results, result{blobs, res.CreatedAt})
			}
		}
		for _, res := range rec.ChainedResults {
			blobs, ok := chained(config.Layers, res.LayerIndexes)
			whole = whole && ok
			if ok {
				r.results = append(r.results, result{blobs, res.CreatedAt})
			}
		}
		records = append(records, r)
	}
	return records, whole
}

func withParents(layers []spec.CacheLayer, at int) ([]digest.Digest, bool) {
	var blobs []digest.Digest
	for steps := 0; at != -1; steps++ {
		if at < 0 || at >= len(layers) || steps > len(layers) {
			return nil, false
		}
		blobs = append([]digest.Digest{layers[at].Blob}, blobs...)
		at = layers[at].ParentIndex
	}
	return blobs, len(blobs) > 0
}

func chained(layers []spec.CacheLayer, indexes []int) ([]digest.Digest, bool) {
	var blobs []digest.Digest
	for _, at := range indexes {
		if at < 0 || at >= len(layers) {
			return nil, false
		}
		blobs = append(blobs, layers[at].Blob)
	}
	return blobs, true
}

// write is the inverse of read, in either form of results.
func write(records []record, form string) spec.CacheConfig {
	var config spec.CacheConfig
	type onTop struct {
		blob   digest.Digest
		parent int
	}
	known := map[onTop]int{}
	layer := func(blob digest.Digest, parent int) int {
		key := onTop{blob, parent}
		at, ok := known[key]
		if !ok {
			at = len(config.Layers)
			known[key] = at
			config.Layers = append(config.Layers, spec.CacheLayer{Blob: blob, ParentIndex: parent})
		}
		return at
	}
	for _, r := range records {
		rec := spec.CacheRecord{Digest: r.digest}
		for _, links := range r.inputs {
			var input []spec.CacheInput
			for _, l := range links {
				input = append(input, spec.CacheInput{Selector: l.selector, LinkIndex: l.to})
			}
			rec.Inputs = append(rec.Inputs, input)
		}
		for _, res := range r.results {
			at := -1
			chain := []int{}
			for _, blob := range res.blobs {
				if form == "chains" {
					at = -1
				}
				at = layer(blob, at)
				chain = append(chain, at)
			}
			if form == "chains" || len(chain) == 0 {
				rec.ChainedResults = append(rec.ChainedResults, spec.ChainedResult{LayerIndexes: chain, CreatedAt: res.at})
			} else {
				rec.Results = append(rec.Results, spec.CacheResult{LayerIndex: at, CreatedAt: res.at})
			}
		}
		config.Records = append(config.Records, rec)
	}
	return config
}
