package train

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

func sqrt32(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// matrix is rows × cols values, row-major, rows stride apart.
type matrix struct {
	v          []float32
	rows, cols int
	stride     int
}

func mat(v []float32, rows, cols int) matrix { return matrix{v, rows, cols, cols} }

// block is the part of m that begins at a row and column of op(m).
func (m matrix) block(row, col int, transposed bool) []float32 {
	if transposed {
		row, col = col, row
	}
	return m.v[row*m.stride+col:]
}

// Tiles of this many rows and columns stay under four of gonum's 64 × 64
// blocks, below which it multiplies in the calling goroutine. All cores are
// busy with shards already, and a row of 192 floats stays in the first cache.
const (
	tileRows = 64
	tileCols = 192
)

// matmul computes c += op(a) · op(b), where op transposes if the flag is set.
func matmul(aT, bT bool, a, b, c matrix) {
	inner := a.cols
	ta, tb := blas.NoTrans, blas.NoTrans
	if aT {
		ta, inner = blas.Trans, a.rows
	}
	if bT {
		tb = blas.Trans
	}
	for i := 0; i < c.rows; i += tileRows {
		m := min(tileRows, c.rows-i)
		for j := 0; j < c.cols; j += tileCols {
			n := min(tileCols, c.cols-j)
			gonum.Implementation{}.Sgemm(ta, tb, m, n, inner, 1,
				a.block(i, 0, aT), a.stride, b.block(0, j, bT), b.stride, 1, c.block(i, j, false), c.stride)
		}
	}
}
