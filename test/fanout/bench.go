package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// options of the benchmark.
type options struct {
	clients, rounds int
	size            int
	dir             string
	ways            []way
	limit           time.Duration // of a round
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := options{ways: all()}
	fs := flag.NewFlagSet("fanout", flag.ContinueOnError)
	fs.IntVar(&o.clients, "clients", 200, "devices")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds of each way, alternating")
	fs.IntVar(&o.size, "size", 3_600_000, "bytes of the model")
	fs.StringVar(&o.dir, "dir", "", "folder for the devices' stores (default: a temporary one)")
	fs.DurationVar(&o.limit, "limit", 5*time.Minute, "of a round")
	fs.Func("ways", "of plain,clean,lossy,independent (default all)", func(s string) error {
		o.ways = nil
		for w := range strings.SplitSeq(s, ",") {
			if !slices.Contains(all(), way(w)) {
				return fmt.Errorf("no way %q", w)
			}
			o.ways = append(o.ways, way(w))
		}
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := bench(ctx, o, out)
	if err != nil {
		return err
	}
	for _, aim := range []struct {
		w    way
		most float64
	}{{clean, 1.2}, {lossy, 1.6}} {
		if got := worst(r[aim.w]); got > aim.most {
			fmt.Fprintf(out, "%s: %.3f is over the aim of %.1f; docs/FANOUT.md says why\n", aim.w, got, aim.most)
		}
	}
	fmt.Fprintf(out, "bench-fanout ratio=%.3f clean=%.3f independent=%.3f clean_wall=%v plain_wall=%v clients=%d\n",
		worst(r[lossy]), worst(r[clean]), worst(r[independent]), median(r[clean]), median(r[plain]), o.clients)
	return nil
}

// way is how a round is run.
type way string

const (
	plain       way = "plain"
	clean       way = "clean"
	lossy       way = "lossy"
	independent way = "independent"
)

func all() []way { return []way{plain, clean, lossy, independent} }

// bench runs all rounds and says how each went.
func bench(ctx context.Context, o options, out io.Writer) (r map[way][]result, err error) {
	dir, err := os.MkdirTemp(o.dir, "fanout-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newStage(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	defer s.close()
	fmt.Fprintf(out, "%d devices, a model of %d bytes in %d chunks, one mosquitto\n", o.clients, o.size, s.model.Count())
	r = map[way][]result{}
	for i := range o.rounds {
		for _, w := range o.ways {
			res, err := s.round(ctx, w)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", i+1, w, err)
			}
			r[w] = append(r[w], res)
			fmt.Fprintf(out, "%d %-12s %v\n", i+1, w, res)
		}
	}
	return r, nil
}

// result is one round.
type result struct {
	ratio float64 // bytes published by the hub by bytes of the model
	wall  time.Duration
	first time.Duration // the first device was complete
	done  int           // devices that are
	sent  string        // what was sent, in words
}

// String is one line of the table.
func (r result) String() string {
	return fmt.Sprintf("ratio %.3f  wall %6v  first device %6v  %s", r.ratio, r.wall.Round(time.Millisecond), r.first.Round(time.Millisecond), r.sent)
}

func worst(rs []result) float64 {
	w := 0.0
	for _, r := range rs {
		w = max(w, r.ratio)
	}
	return w
}

func median(rs []result) time.Duration {
	var all []time.Duration
	for _, r := range rs {
		all = append(all, r.wall)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2].Round(time.Millisecond)
}
