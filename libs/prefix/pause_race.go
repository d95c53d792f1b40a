//go:build race

package prefix

import (
	"math/rand/v2"
	"runtime"
)

func pause() {
	for rand.IntN(32) == 0 {
		runtime.Gosched()
	}
}

const moveAfter = 2
