// Command oracle proves unions of cache configs right against BuildKit itself.
//
// It reads requests on stdin and answers each on stdout, one JSON document a
// line. A request `check` holds config sets and somebody's union of them: the
// answer is `{"ok":true}`, or what is wrong with a key query that shows it. A
// request `make` is answered with the union that the model makes. With the
// argument `measure` it instead prints what loading a config costs BuildKit.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
)

type request struct {
	Do string `json:"do"`
	// The cache configs, as exported.
	Configs []json.RawMessage `json:"configs"`
	// The union under test.
	Union json.RawMessage `json:"union"`
	// Names of operations by the digest of their records: what a query needs,
	// and what makes an answer readable.
	Ops map[string]string `json:"ops"`
	// Decides orders and queries.
	Seed uint64 `json:"seed"`
	// How often the union is loaded, since BuildKit's maps have no order.
	Loads int `json:"loads"`
	// In how many orders BuildKit parses the configs.
	Orders int `json:"orders"`
	// How many random key queries are asked.
	Queries int `json:"queries"`
	// Whether the union may know less than the fixed point, but no less than
	// BuildKit.
	Lenient bool `json:"lenient"`
	// How `make` writes results: "layers" or "chains".
	Form string `json:"form"`
}

type answer struct {
	Ok bool `json:"ok"`
	// What kind of wrong: see failure.
	Kind   string          `json:"kind,omitempty"`
	Detail string          `json:"detail,omitempty"`
	Union  json.RawMessage `json:"union,omitempty"`
	// Records of the model, and what was compared: a check that saw nothing
	// proves nothing.
	Records int  `json:"records,omitempty"`
	Hits    int  `json:"hits,omitempty"`
	Misses  int  `json:"misses,omitempty"`
	Cyclic  bool `json:"cyclic,omitempty"`
}

func main() {
	// BuildKit's cache manager traces every query.
	logrus.SetOutput(io.Discard)
	if len(os.Args) > 1 && os.Args[1] == "measure" {
		flags := flag.NewFlagSet("measure", flag.ExitOnError)
		records := flags.Int("records", 10_000, "records of the config that is made up")
		depth := flags.Int("depth", 20, "layers of the longest chain")
		form := flags.String("form", "layers", "layers or chains")
		file := flags.String("config", "", "a config to measure instead")
		_ = flags.Parse(os.Args[2:])
		exit(measure(*file, *records, *depth, *form))
		return
	}
	exit(serve(os.Stdin, os.Stdout))
}

func serve(in io.Reader, out io.Writer) error {
	requests := bufio.NewReaderSize(in, 1<<20)
	answers := bufio.NewWriter(out)
	for {
		line, err := requests.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		var req request
		if err := json.Unmarshal(line, &req); err != nil {
			return fmt.Errorf("not a request: %w", err)
		}
		text, err := json.Marshal(respond(&req))
		if err != nil {
			return err
		}
		if _, err := answers.Write(append(text, '\n')); err != nil {
			return err
		}
		if err := answers.Flush(); err != nil {
			return err
		}
	}
}

func respond(req *request) answer {
	model := fixedPoint(req.Configs)
	if req.Do == "make" {
		return answer{Ok: true, Union: model.union(req.Form)}
	}
	c := &check{req: req, model: model, names: newNames(req.Ops)}
	failed := c.run()
	a := answer{
		Ok:      failed == nil,
		Records: len(model.classes),
		Hits:    c.hits,
		Misses:  c.misses,
		Cyclic:  model.cyclic,
	}
	if failed != nil {
		a.Kind, a.Detail = failed.kind, failed.detail
	}
	return a
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}
