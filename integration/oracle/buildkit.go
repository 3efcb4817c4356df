package main

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	spec "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/solver"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/containerd/containerd/v2/core/content"
)

// nothing provides no blob: none is ever read.
type nothing struct{}

func (nothing) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return nil, errors.New("no blob is read here")
}

// provide has every layer of a config, as after a pull of its manifest.
func provide(layers []spec.CacheLayer) v1.DescriptorProvider {
	all := v1.DescriptorProvider{}
	for _, layer := range layers {
		all[layer.Blob] = v1.DescriptorProviderPair{
			Descriptor: ocispecs.Descriptor{
				MediaType: ocispecs.MediaTypeImageLayerGzip,
				Digest:    layer.Blob,
				Size:      1,
			},
			Provider: nothing{},
		}
	}
	return all
}

// loaded is a config as the solver sees it after an import.
type loaded struct {
	manager solver.CacheManager
	keys    solver.CacheKeyStorage
	results solver.CacheResultStorage
}

// load does what an importer does (cache/remotecache/s3, Resolve).
func load(config spec.CacheConfig) (*loaded, error) {
	chains := v1.NewCacheChains()
	if err := v1.ParseConfig(config, provide(config.Layers), chains); err != nil {
		return nil, err
	}
	return store(chains)
}

func store(chains *v1.CacheChains) (*loaded, error) {
	keys, results, err := v1.NewCacheKeyStorage(chains, nil)
	if err != nil {
		return nil, err
	}
	manager := solver.NewCacheManager(context.Background(), "import", keys, results)
	return &loaded{manager, keys, results}, nil
}

// graph reads back what the key storage holds. A record whose links BuildKit
// lost has an input without links; if no link at all is left of it, its digest
// is not known and it is left out.
func (l *loaded) graph() ([]record, error) {
	index := map[string]int{}
	var ids []string
	err := l.keys.Walk(func(id string) error {
		index[id] = len(ids)
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Query reads the same links; only this tells which there are.
	storage, ok := l.keys.(interface {
		WalkLinksAll(id string, fn func(id string, link solver.CacheInfoLink) error) error
	})
	if !ok {
		return nil, errors.New("BuildKit's key storage does not list its links")
	}
	records := make([]record, len(ids))
	for from, id := range ids {
		err := storage.WalkLinksAll(id, func(target string, info solver.CacheInfoLink) error {
			to, ok := index[target]
			if !ok {
				return fmt.Errorf("a link leads to %q, which is not there", target)
			}
			r := &records[to]
			if r.digest != "" && r.digest != info.Digest {
				return fmt.Errorf("links with the digests %s and %s lead to one record", r.digest, info.Digest)
			}
			r.digest = info.Digest
			for len(r.inputs) <= int(info.Input) {
				r.inputs = append(r.inputs, nil)
			}
			r.inputs[info.Input] = append(r.inputs[info.Input], link{string(info.Selector), from})
			return nil
		})
		if err != nil {
			return nil, err
		}
		err = l.keys.WalkResults(id, func(res solver.CacheResult) error {
			blobs, err := l.blobs(res)
			records[from].results = append(records[from].results, result{blobs, res.CreatedAt})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for at, id := range ids {
		if dgst, err := digest.Parse(id); err == nil && len(records[at].inputs) == 0 {
			records[at].digest = dgst
		}
	}
	return records, nil
}

// blobs is the content of a result, by the way that a re-export takes.
func (l *loaded) blobs(res solver.CacheResult) ([]digest.Digest, error) {
	remotes, err := l.results.LoadRemotes(context.Background(), res, nil, nil)
	if err != nil || len(remotes) != 1 {
		return nil, fmt.Errorf("result %s has %d remotes: %w", res.ID, len(remotes), err)
	}
	var blobs []digest.Digest
	for _, desc := range remotes[0].Descriptors {
		blobs = append(blobs, desc.Digest)
	}
	if got := (result{blobs: blobs}).content(); got != res.ID {
		return nil, fmt.Errorf("result %s loads as %s", res.ID, got)
	}
	return blobs, nil
}

// reference is what BuildKit itself knows when it parses configs one after
// another into one graph. That depends on their order.
type reference struct {
	chains *v1.CacheChains
	// Every record that was added, for joining them.
	added []solver.CacheExporterRecord
}

func (r *reference) Add(dgst digest.Digest, deps [][]solver.CacheLink, results []solver.CacheExportResult) (solver.CacheExporterRecord, bool, error) {
	rec, ok, err := r.chains.Add(dgst, deps, results)
	if ok {
		r.added = append(r.added, rec)
	}
	return rec, ok, err
}

// inOrder has BuildKit parse all configs.
func inOrder(configs []spec.CacheConfig) (*reference, error) {
	r := &reference{chains: v1.NewCacheChains()}
	for _, config := range configs {
		if err := v1.ParseConfig(config, provide(config.Layers), r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// records is what BuildKit would write out: complete, whatever its key storage
// loses.
func (r *reference) records() ([]record, error) {
	config, _, err := r.chains.Marshal(context.Background())
	if err != nil {
		return nil, err
	}
	records, _ := stand(*config)
	return records, nil
}

// joined is the graph as the solver sees it, with one record upon all others,
// so that there is one leaf only and no link is lost. Never call it on a graph
// that may have a cycle: BuildKit's recursion would not end.
func (r *reference) joined() (*loaded, error) {
	links := []solver.CacheLink{}
	for _, rec := range r.added {
		links = append(links, solver.CacheLink{Src: rec})
	}
	if len(links) > 0 {
		_, _, err := r.chains.Add(digest.FromString("joins the reference"), [][]solver.CacheLink{links}, nil)
		if err != nil {
			return nil, err
		}
	}
	return store(r.chains)
}
