package wire

import (
	"fmt"

	"github.com/droverhq/drover/infer"
)

// GoldenCase is one decoded picture and the raw output tensor it must give.
type GoldenCase struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Format string `json:"format"` // bgr8 or gray8, rows without padding
	Pixels []byte `json:"pixels"`
	Output []byte `json:"output"` // by the runtime's own kernels
	// XNNPACK is what the XNNPACK delegate gives, where that is not the same:
	// its arithmetic differs by a few quanta, not by an error.
	XNNPACK []byte `json:"xnnpack,omitempty"`
	Label   string `json:"label,omitempty"` // for a person reading the file
}

// Golden is the blob of golden inputs of one variant.
type Golden struct {
	V     int          `json:"v"`
	Cases []GoldenCase `json:"cases"`
}

// DecodeGolden decodes golden inputs and checks them against the contract.
func DecodeGolden(b []byte, c infer.Contract) (*Golden, error) {
	g := new(Golden)
	if err := DecodeStrict(b, MaxGolden, g); err != nil {
		return nil, err
	}
	if len(g.Cases) < 1 || len(g.Cases) > MaxCases {
		return nil, fmt.Errorf("%w: %d golden inputs, wanted 1 to %d", ErrMalformed, len(g.Cases), MaxCases)
	}
	for i, k := range g.Cases {
		ch := map[string]int{"bgr8": 3, "gray8": 1}[k.Format]
		if ch == 0 || k.Width < 1 || k.Height < 1 || k.Width > 8192 || k.Height > 8192 || len(k.Pixels) != k.Width*k.Height*ch {
			return nil, fmt.Errorf("%w: golden input %d: %d bytes for %d×%d %s", ErrMalformed, i, len(k.Pixels), k.Width, k.Height, k.Format)
		}
		if len(k.Output) != c.Output.Bytes() {
			return nil, fmt.Errorf("%w: golden input %d: %d output bytes, the contract says %d", ErrMalformed, i, len(k.Output), c.Output.Bytes())
		}
		if k.XNNPACK != nil && len(k.XNNPACK) != len(k.Output) {
			return nil, fmt.Errorf("%w: golden input %d: %d output bytes of XNNPACK, the contract says %d", ErrMalformed, i, len(k.XNNPACK), len(k.Output))
		}
	}
	return g, nil
}
