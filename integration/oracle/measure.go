package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	spec "github.com/moby/buildkit/cache/remotecache/v1/types"
	digest "github.com/opencontainers/go-digest"
)

// measure prints what one import of a config costs BuildKit: the time and work from its
// bytes to a cache manager, and the memory that stays and that is used up.
func measure(file string, records, depth int, form string) error {
	var text []byte
	var err error
	if file != "" {
		text, err = os.ReadFile(file)
	} else {
		text, err = json.Marshal(made(records, depth, form))
	}
	if err != nil {
		return err
	}
	var config spec.CacheConfig
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	config = spec.CacheConfig{}
	debug.FreeOSMemory()
	var before, after, kept runtime.MemStats
	runtime.ReadMemStats(&before)
	start, worked := time.Now(), cpu()
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	l, err := load(config)
	if err != nil {
		return err
	}
	took := time.Since(start)
	worked = cpu() - worked
	runtime.ReadMemStats(&after)
	config = spec.CacheConfig{}
	runtime.GC()
	runtime.ReadMemStats(&kept)
	fmt.Printf("records=%d depth=%d form=%s json=%dKiB load=%dms cpu=%dms kept=%dMiB allocated=%dMiB peak=%s\n",
		records, depth, form, len(text)>>10, took.Milliseconds(), worked.Milliseconds(),
		(kept.HeapAlloc-before.HeapAlloc)>>20, (after.TotalAlloc-before.TotalAlloc)>>20, peak())
	runtime.KeepAlive(l)
	return nil
}

// cpu is the time that the process has worked, its garbage collector included:
// it holds on a busy machine, too.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// made is a config of runs of steps on a few bases. Each run is as many steps
// long as chains are deep, and every step has a result.
func made(count, depth int, form string) spec.CacheConfig {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var records []record
	for len(records) < count {
		run := len(records)
		base := []digest.Digest{digest.FromString(fmt.Sprint("base ", run%7))}
		records = append(records, record{digest: digest.FromString(fmt.Sprint("image ", run))})
		chain := base
		for step := 0; step < depth-1 && len(records) < count; step++ {
			chain = append(chain[:len(chain):len(chain)], digest.FromString(fmt.Sprint("layer ", run, step)))
			records = append(records, record{
				digest:  digest.FromString(fmt.Sprint("step ", run, step)),
				inputs:  [][]link{{{"", len(records) - 1}}},
				results: []result{{chain, at.Add(time.Duration(len(records)) * time.Second)}},
			})
		}
	}
	config := write(records, form)
	for i, layer := range config.Layers {
		config.Layers[i].Annotations = &spec.LayerAnnotations{
			MediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
			DiffID:    digest.FromString("unpacked " + string(layer.Blob)),
			Size:      1_000_000,
			CreatedAt: at,
		}
	}
	return config
}

// peak is the most memory that the process ever held.
func peak() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.ReplaceAll(strings.TrimSpace(value), " ", "")
		}
	}
	return "unknown"
}
