package vision

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"encoding/binary"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
)

const profile = cage.Infer

// Verdict is what a probe measured.
type Verdict struct {
	Runtime     protocol.Runtime
	Delegate    protocol.Delegate
	Cases       int
	LatencyP99  time.Duration // preprocessing and inference
	MemoryBytes int64         // resident size of the child
}

// Failure is why a probe refused a model.
type Failure struct {
	Reason  wire.Reason
	Message string
}

// Error implements error.
func (f *Failure) Error() string { return string(f.Reason) + ": " + f.Message }

// errOtherDelegate says that a runtime fell back to another one, which is
// tried under its own name.
var errOtherDelegate = errors.New("vision: delegate not usable for this model")

// probeRuns is how often the golden inputs are repeated for the latency.
const probeRuns = 20

// Probe runs a candidate in a cage of its own, beside whatever is active: the
// tensors must be the contract's, the golden inputs must give the signed
// outputs, latency and memory must be within the budget. Of the runtimes tried
// the fastest whose outputs hold wins. A *Failure says why none does.
func (v *Vision) Probe(ctx context.Context, m Model, golden *wire.Golden, tolerance int, budget wire.Budget) (Verdict, error) {
	var best *Verdict
	var firstErr error
	for _, rt := range runtimes(m) {
		verdict, err := v.probeOne(ctx, m, rt, golden, tolerance)
		if ctx.Err() != nil {
			return Verdict{}, ctx.Err()
		}
		if err != nil {
			v.cfg.Logger.Info("probe", "release", m.Release.Path, "delegate", rt.Delegate, "refused", err)
			if firstErr == nil || errors.Is(firstErr, errOtherDelegate) {
				firstErr = err
			}
			continue
		}
		if best == nil || verdict.LatencyP99 < best.LatencyP99 {
			best = &verdict
		}
	}
	if best == nil {
		return Verdict{}, firstErr
	}
	if b := time.Duration(budget.LatencyP99Micros) * time.Microsecond; b > 0 && best.LatencyP99 > b {
		return Verdict{}, &Failure{wire.ReasonLatency, fmt.Sprintf("p99 of one inference is %v, budget %v", best.LatencyP99, b)}
	}
	if b := budget.MemoryBytes; b > 0 && best.MemoryBytes > b {
		return Verdict{}, &Failure{wire.ReasonMemory, fmt.Sprintf("the child takes %d bytes, budget %d", best.MemoryBytes, b)}
	}
	return *best, nil
}

// runtimes lists what is worth trying. XNNPACK stays on one thread: the cores
// are shared with the camera.
func runtimes(m Model) []protocol.Runtime {
	if m.Runtime.Delegate != "" {
		return []protocol.Runtime{m.Runtime}
	}
	return []protocol.Runtime{{Delegate: protocol.XNNPACK, Threads: 1}, {Delegate: protocol.Builtin, Threads: 1}}
}

func (v *Vision) probeOne(ctx context.Context, m Model, rt protocol.Runtime, golden *wire.Golden, tolerance int) (Verdict, error) {
	m.Runtime = rt
	lctx, cancel := context.WithTimeout(ctx, v.patience)
	child, loaded, err := v.startInfer(lctx, m)
	cancel()
	if err != nil {
		return Verdict{}, failure(err)
	}
	defer child.Close()
	if loaded.Delegate != rt.Delegate {
		// It would be measured again under its own name.
		return Verdict{}, fmt.Errorf("%w: %s: %s", errOtherDelegate, rt.Delegate, loaded.Fallback)
	}
	if err := loaded.Contract.Diff(m.Spec.Contract); err != nil {
		return Verdict{}, &Failure{wire.ReasonContract, err.Error()}
	}
	out := make([]byte, m.Spec.Contract.Output.Bytes())
	var times []time.Duration
	for run := range probeRuns {
		for i := range golden.Cases {
			k := &golden.Cases[i]
			cctx, cancel := context.WithTimeout(ctx, v.patience)
			answer, err := child.Classify(cctx, caseFrame(k), out)
			cancel()
			if err != nil {
				return Verdict{}, failure(err)
			}
			times = append(times, answer.Prep+answer.Invoke)
			if run > 0 {
				continue
			}
			want := k.Output
			if rt.Delegate == protocol.XNNPACK && k.XNNPACK != nil {
				want = k.XNNPACK
			}
			if msg := compare(answer.Output, want, m.Spec.Contract.Output.DType, tolerance); msg != "" {
				return Verdict{}, &Failure{wire.ReasonGolden, fmt.Sprintf("golden input %d (%s) by %s: %s", i, k.Label, rt.Delegate, msg)}
			}
		}
	}
	slices.Sort(times)
	return Verdict{
		Runtime: rt, Delegate: loaded.Delegate, Cases: len(golden.Cases),
		LatencyP99: times[min(len(times)-1, len(times)*99/100)], MemoryBytes: residentBytes(child.PID()),
	}, nil
}

// caseFrame is the decoded picture of a golden input.
func caseFrame(k *wire.GoldenCase) *camera.Frame {
	format := camera.Gray8
	if k.Format == camera.BGR8.String() {
		format = camera.BGR8
	}
	return &camera.Frame{Width: k.Width, Height: k.Height, Stride: k.Width * format.Channels(), Format: format, Data: k.Pixels}
}

// compare names the first element that differs by more than tolerance quanta.
// A quantum of a float output is 1/256, that of the usual 8-bit softmax.
func compare(got, want []byte, t infer.DType, tolerance int) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d output bytes, signed %d", len(got), len(want))
	}
	for i := 0; i < len(got); i += t.Size() {
		var g, w float64
		quantum := 1.0
		switch t {
		case infer.Uint8:
			g, w = float64(got[i]), float64(want[i])
		case infer.Int8:
			g, w = float64(int8(got[i])), float64(int8(want[i]))
		default:
			quantum = 1.0 / 256
			g = float64(math.Float32frombits(binary.LittleEndian.Uint32(got[i:])))
			w = float64(math.Float32frombits(binary.LittleEndian.Uint32(want[i:])))
		}
		if !(math.Abs(g-w) <= float64(tolerance)*quantum) {
			return fmt.Sprintf("output %d is %g, signed %g, tolerance %d", i/t.Size(), g, w, tolerance)
		}
	}
	return ""
}

// failure gives an error of the host its reason.
func failure(err error) error {
	var refused *host.Refusal
	if errors.As(err, &refused) {
		reason := wire.ReasonModel
		switch refused.Kind {
		case protocol.RefusedContract:
			reason = wire.ReasonContract
		case protocol.RefusedMemory:
			reason = wire.ReasonMemory
		case protocol.RefusedCustomOp, protocol.RefusedDelegate:
			reason = wire.ReasonRequires
		}
		return &Failure{reason, refused.Error()}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Failure{wire.ReasonHang, err.Error()}
	}
	var death *host.Death
	if errors.As(err, &death) {
		// Its own words are all there is to tell a failed allocation by.
		words := death.LastWords + "\n" + death.Stderr
		if strings.Contains(words, "out of memory") || strings.Contains(words, "bad_alloc") {
			return &Failure{wire.ReasonMemory, death.Error()}
		}
		return &Failure{wire.ReasonCrash, death.Error()}
	}
	return err
}

// residentBytes reads VmRSS of a process; 0 when it cannot be told.
func residentBytes(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64); err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
