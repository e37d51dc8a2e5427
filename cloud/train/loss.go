package train

import "math"

// softmaxCrossEntropy turns n rows of logits into the gradient of the mean
// cross-entropy over a batch of total pictures, in place. It returns the sum of
// the rows' losses and how many rows have their largest logit at the class.
func softmaxCrossEntropy(logits []float32, classes []int, total int) (loss float64, hits int) {
	n := len(classes)
	width := len(logits) / n
	for i, class := range classes {
		row := logits[i*width : (i+1)*width]
		top := 0
		for j, v := range row {
			if v > row[top] {
				top = j
			}
		}
		if top == class {
			hits++
		}
		peak, z := row[top], 0.0
		for _, v := range row {
			z += math.Exp(float64(v - peak))
		}
		loss += math.Log(z) - float64(row[class]-peak)
		for j, v := range row {
			row[j] = float32(math.Exp(float64(v-peak)) / z / float64(total))
		}
		row[class] -= 1 / float32(total)
	}
	return loss, hits
}
