package report

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
)

// evenTicks marks an axis in four to ten steps of 1, 2 or 5 times a power of ten.
type evenTicks struct {
	percent bool // of an axis of shares
}

// Ticks implements plot.Ticker.
func (e evenTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, m := range []float64{5, 2} {
		if (high-low)/(m*step) >= 4 {
			step *= m
			break
		}
	}
	for i := math.Ceil(low / step); i*step <= high+step/1e6; i++ {
		label := fmt.Sprintf("%.6g", i*step)
		if e.percent {
			label = fmt.Sprintf("%.6g %%", 100*i*step)
		}
		ticks = append(ticks, plot.Tick{Value: i * step, Label: label})
	}
	return ticks
}

// decadeTicks marks 1, 2 and 5 of each power of ten.
type decadeTicks struct{}

// Ticks implements plot.Ticker.
func (decadeTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for e := math.Floor(math.Log10(low)); e <= math.Log10(high); e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); v >= low*.999 && v <= high*1.001 {
				ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.4g", v)})
			}
		}
	}
	return ticks
}
