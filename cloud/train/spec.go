package train

import (
	"fmt"
	"math"
)

// The networks.
const (
	NetworkSoftmax = "softmax" // one dense layer
	NetworkMLP     = "mlp"     // Hidden dense layers with ReLU, and one more
	NetworkLeNet   = "lenet"   // per Filters: convolution, ReLU, 2×2 max pooling; then as mlp
)

// The optimizers and schedules.
const (
	OptimizerAdam = "adam"
	OptimizerSGD  = "sgd"

	ScheduleConstant = "constant"
	ScheduleCosine   = "cosine" // falls from LearningRate to 0 over the run
)

// Augment varies the training pictures.
type Augment struct {
	Shift int  `json:"shift,omitempty"` // at most so many pixels each way; the border repeats
	Flip  bool `json:"flip,omitempty"`  // left and right, every second time
}

// Spec says which network is trained and how. With the data it determines the
// model to the byte.
type Spec struct {
	Network  string `json:"network"`
	Classes  int    `json:"classes"`
	Height   int    `json:"height"`
	Width    int    `json:"width"`
	Channels int    `json:"channels"`
	Filters  []int  `json:"filters,omitempty"`
	Kernel   int    `json:"kernel,omitempty"`
	Same     bool   `json:"same,omitempty"` // convolutions keep the size
	Hidden   []int  `json:"hidden,omitempty"`

	Epochs       int     `json:"epochs"`
	PerEpoch     int     `json:"per_epoch,omitempty"` // pictures, drawn anew each time; 0 = all
	Batch        int     `json:"batch"`
	Optimizer    string  `json:"optimizer"`
	LearningRate float64 `json:"learning_rate"`
	Momentum     float64 `json:"momentum,omitempty"`     // of sgd
	WeightDecay  float64 `json:"weight_decay,omitempty"` // fraction of a weight taken off per step, times the learning rate
	Schedule     string  `json:"schedule"`
	Warmup       float64 `json:"warmup,omitempty"` // fraction of the run in which the rate rises to LearningRate
	Augment      Augment `json:"augment"`
	Calibration  int     `json:"calibration"` // pictures that set the ranges of int8 activations
	Seed         uint64  `json:"seed"`
}

// Preset returns a spec by name without its geometry (Classes, Height, Width,
// Channels): "quick" gives a first usable model within seconds, "good" a
// better one in a few times as long.
func Preset(name string) (Spec, error) {
	switch name {
	case "quick":
		return Spec{Network: NetworkLeNet, Filters: []int{8, 16}, Kernel: 3, Hidden: []int{64},
			Epochs: 2, Batch: 32, Optimizer: OptimizerAdam, LearningRate: 0.005,
			Schedule: ScheduleCosine, Warmup: 0.05, Calibration: 512, Seed: 1}, nil
	case "good":
		return Spec{Network: NetworkLeNet, Filters: []int{8, 24}, Kernel: 3, Hidden: []int{64},
			Epochs: 4, Batch: 32, Optimizer: OptimizerAdam, LearningRate: 0.005, WeightDecay: 0.05,
			Schedule: ScheduleCosine, Warmup: 0.05, Calibration: 512, Seed: 1}, nil
	}
	return Spec{}, fmt.Errorf("%w: unknown preset %q (quick or good)", ErrSpec, name)
}

// Validate names the first value that cannot be trained with.
func (s Spec) Validate() error {
	bad := func(name string, v any, want string) error {
		return fmt.Errorf("%w: %s is %v, wanted %s", ErrSpec, name, v, want)
	}
	switch {
	case s.Network != NetworkSoftmax && s.Network != NetworkMLP && s.Network != NetworkLeNet:
		return bad("network", fmt.Sprintf("%q", s.Network), "softmax, mlp or lenet")
	case s.Classes < 2 || s.Classes > 1024:
		return bad("classes", s.Classes, "2 to 1024")
	case s.Height < 1 || s.Height > 512 || s.Width < 1 || s.Width > 512:
		return bad("height × width", fmt.Sprintf("%d×%d", s.Height, s.Width), "1 to 512 each")
	case s.Channels != 1 && s.Channels != 3:
		return bad("channels", s.Channels, "1 or 3")
	case s.Network == NetworkLeNet && (s.Kernel < 1 || s.Kernel > 11):
		return bad("kernel", s.Kernel, "1 to 11")
	case s.Network == NetworkLeNet && len(s.Filters) == 0:
		return bad("filters", s.Filters, "one number per convolution")
	case s.Network == NetworkMLP && len(s.Hidden) == 0:
		return bad("hidden", s.Hidden, "one number per hidden layer")
	case s.Epochs < 1 || s.Epochs > 10000:
		return bad("epochs", s.Epochs, "1 to 10000")
	case s.PerEpoch < 0:
		return bad("per_epoch", s.PerEpoch, "0 or more")
	case s.Batch < 1 || s.Batch > 4096:
		return bad("batch", s.Batch, "1 to 4096")
	case s.Optimizer != OptimizerAdam && s.Optimizer != OptimizerSGD:
		return bad("optimizer", fmt.Sprintf("%q", s.Optimizer), "adam or sgd")
	case !(s.LearningRate > 0) || math.IsInf(s.LearningRate, 0):
		return bad("learning_rate", s.LearningRate, "a positive number")
	case !(s.Momentum >= 0 && s.Momentum < 1):
		return bad("momentum", s.Momentum, "0 to below 1")
	case !(s.WeightDecay >= 0 && s.WeightDecay < 1):
		return bad("weight_decay", s.WeightDecay, "0 to below 1")
	case s.Schedule != ScheduleConstant && s.Schedule != ScheduleCosine:
		return bad("schedule", fmt.Sprintf("%q", s.Schedule), "constant or cosine")
	case !(s.Warmup >= 0 && s.Warmup < 1):
		return bad("warmup", s.Warmup, "0 to below 1")
	case s.Augment.Shift < 0 || s.Augment.Shift >= min(s.Height, s.Width):
		return bad("augment.shift", s.Augment.Shift, "0 to below the picture's size")
	case s.Calibration < 1:
		return bad("calibration", s.Calibration, "1 or more")
	}
	for _, n := range append(append([]int(nil), s.Filters...), s.Hidden...) {
		if n < 1 || n > 8192 {
			return bad("width of a layer", n, "1 to 8192")
		}
	}
	return nil
}

// rate is the learning rate at a step of steps.
func (s Spec) rate(step, steps int) float32 {
	done := (float64(step) + 0.5) / float64(steps)
	r := s.LearningRate
	if done < s.Warmup {
		return float32(r * done / s.Warmup)
	}
	if s.Schedule == ScheduleCosine {
		r *= 0.5 * (1 + math.Cos(math.Pi*(done-s.Warmup)/(1-s.Warmup)))
	}
	return float32(r)
}
