package infer

import (
	"fmt"
	"math"
)

// Fit says how a frame of another aspect ratio is brought to the input's.
type Fit string

// The fits.
const (
	Stretch   Fit = "stretch"   // scale both sides independently
	Crop      Fit = "crop"      // cut the largest centred rectangle of the input's aspect ratio
	Letterbox Fit = "letterbox" // scale to fit inside, fill the rest with Pad
)

// Color is the order of channels the model was trained on.
type Color string

// The colour orders.
const (
	RGB  Color = "rgb"
	BGR  Color = "bgr"
	Gray Color = "gray" // luma of Rec. 601, as OpenCV computes it
)

// Interpolation names the resampler.
type Interpolation string

// The resamplers. Antialias is a triangle filter as wide as the pixels that
// become one; Pillow, torchvision and tf.image with antialias call that
// bilinear, so that most models were trained on it. The others are OpenCV's.
const (
	Antialias Interpolation = "antialias"
	Bilinear  Interpolation = "bilinear"
	Area      Interpolation = "area" // for shrinking: averages; falls back to bilinear when growing
	Nearest   Interpolation = "nearest"
)

// Preprocess is the exact recipe from a frame to the input tensor. Every
// channel's real value is (pixel − Mean) ÷ Std with pixel in 0…255; a
// quantized input then holds round-half-away(real ÷ scale) + zero point,
// saturated.
type Preprocess struct {
	Color         Color         `json:"color"`
	Fit           Fit           `json:"fit"`
	CropFraction  float64       `json:"crop_fraction"` // of the fitted rectangle's sides, (0, 1]; 0.875 is usual for ImageNet
	Interpolation Interpolation `json:"interpolation"`
	Mean          []float32     `json:"mean"` // one value, or one per channel, in the order of Color
	Std           []float32     `json:"std"`  // likewise; positive
	Pad           uint8         `json:"pad"`  // pixel value of the letterbox bars
}

// Activation says what is still to be done to the output's real values before
// they are probabilities.
type Activation string

// The activations.
const (
	Identity Activation = "none"    // the model ends in softmax or sigmoid
	Softmax  Activation = "softmax" // the model gives logits
)

// Postprocess turns output values into an answer.
type Postprocess struct {
	Activation  Activation `json:"activation"`
	Temperature float64    `json:"temperature"` // divides logits before softmax, > 0; 1 leaves them
	TopK        int        `json:"top_k"`       // ≥ 1
	Threshold   float64    `json:"threshold"`   // [0, 1]: below it the answer is "unsure"
}

// Spec is everything that must be known to run a classifier and read it.
type Spec struct {
	Contract    Contract    `json:"contract"`
	Labels      []string    `json:"labels"` // index = class
	Preprocess  Preprocess  `json:"preprocess"`
	Postprocess Postprocess `json:"postprocess"`
}

// DefaultPostprocess is top 5 of a model that ends in softmax.
func DefaultPostprocess() Postprocess {
	return Postprocess{Activation: Identity, Temperature: 1, TopK: 5}
}

// Check says whether the parts exist and fit each other.
func (s *Spec) Check() error {
	if err := s.Contract.Check(); err != nil {
		return err
	}
	_, _, ch, _, err := s.Contract.InputGeometry()
	if err != nil {
		return err
	}
	if n := s.Contract.Classes(); len(s.Labels) != n {
		return fmt.Errorf("%w: %d labels for %d outputs", ErrContract, len(s.Labels), n)
	}
	for i, l := range s.Labels {
		if len(l) > MaxLabelBytes {
			return fmt.Errorf("%w: label %d has %d bytes, allowed %d", ErrContract, i, len(l), MaxLabelBytes)
		}
	}
	p := s.Preprocess
	switch p.Color {
	case RGB, BGR:
		if ch != 3 {
			return fmt.Errorf("%w: colour %q for an input of %d channel", ErrContract, p.Color, ch)
		}
	case Gray:
		if ch != 1 {
			return fmt.Errorf("%w: colour %q for an input of %d channels", ErrContract, p.Color, ch)
		}
	default:
		return fmt.Errorf("%w: unknown colour order %q (rgb, bgr or gray)", ErrContract, p.Color)
	}
	switch p.Fit {
	case Stretch, Crop, Letterbox:
	default:
		return fmt.Errorf("%w: unknown fit %q (stretch, crop or letterbox)", ErrContract, p.Fit)
	}
	switch p.Interpolation {
	case Antialias, Bilinear, Area, Nearest:
	default:
		return fmt.Errorf("%w: unknown interpolation %q (antialias, bilinear, area or nearest)", ErrContract, p.Interpolation)
	}
	if !(p.CropFraction > 0 && p.CropFraction <= 1) {
		return fmt.Errorf("%w: crop fraction %v, wanted more than 0 and at most 1", ErrContract, p.CropFraction)
	}
	for name, v := range map[string][]float32{"mean": p.Mean, "std": p.Std} {
		if len(v) != 1 && len(v) != ch {
			return fmt.Errorf("%w: %d %s values for %d channels", ErrContract, len(v), name, ch)
		}
		for _, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) || (name == "std" && x <= 0) {
				return fmt.Errorf("%w: %s value %v", ErrContract, name, x)
			}
		}
	}
	o := s.Postprocess
	if o.Activation != Identity && o.Activation != Softmax {
		return fmt.Errorf("%w: unknown activation %q (none or softmax)", ErrContract, o.Activation)
	}
	if !(o.Temperature > 0) || math.IsInf(o.Temperature, 0) || o.TopK < 1 || !(o.Threshold >= 0 && o.Threshold <= 1) {
		return fmt.Errorf("%w: postprocess temperature %v, top_k %d, threshold %v", ErrContract, o.Temperature, o.TopK, o.Threshold)
	}
	return nil
}
