package blockkey

import (
	"encoding/binary"
	"math"
	"math/big"
	"slices"
)

// Opcodes of pickle protocol 5, named as in CPython's Lib/pickle.py.
const (
	opProto           = 0x80
	opFrame           = 0x95
	opStop            = '.'
	opMark            = '('
	opNone            = 'N'
	opEmptyTuple      = ')'
	opTuple           = 't'
	opTuple1          = 0x85 // opTuple1+1 and +2 are those of two and three items
	opMemoize         = 0x94
	opBinInt          = 'J'
	opBinInt1         = 'K'
	opBinInt2         = 'M'
	opLong1           = 0x8a
	opShortBinUnicode = 0x8c
	opBinUnicode      = 'X'
	opShortBinBytes   = 'C'
	opBinBytes        = 'B'
)

// appendPickle appends v as CPython's pickle.dumps(v, protocol=5) writes it: one frame, every string, byte string and
// tuple memoised, no value met twice.
func appendPickle(dst []byte, v any) []byte {
	dst = append(dst, opProto, 5, opFrame)
	length := len(dst)
	dst = append(dst, make([]byte, 8)...)
	dst = append(pickleValue(dst, v), opStop)
	binary.LittleEndian.PutUint64(dst[length:], uint64(len(dst)-length-8))
	return dst
}

func pickleValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return pickleText(dst, opShortBinUnicode, opBinUnicode, v)
	case []byte:
		return pickleText(dst, opShortBinBytes, opBinBytes, string(v))
	case int64:
		return pickleInt(dst, v)
	case *big.Int:
		if v.IsInt64() {
			return pickleInt(dst, v.Int64())
		}
		return pickleLong(dst, v)
	case []uint32:
		return pickleTuple(dst, len(v), func(dst []byte, i int) []byte { return pickleInt(dst, int64(v[i])) })
	case tuple:
		return pickleTuple(dst, len(v), func(dst []byte, i int) []byte { return pickleValue(dst, v[i]) })
	}
	return append(dst, opNone)
}

func pickleTuple(dst []byte, n int, item func(dst []byte, i int) []byte) []byte {
	if n == 0 {
		return append(dst, opEmptyTuple)
	}
	if n > 3 {
		dst = append(dst, opMark)
	}
	for i := range n {
		dst = item(dst, i)
	}
	if n > 3 {
		return append(dst, opTuple, opMemoize)
	}
	return append(dst, opTuple1+byte(n-1), opMemoize)
}

func pickleText(dst []byte, short, long byte, s string) []byte {
	if len(s) <= math.MaxUint8 {
		dst = append(dst, short, byte(len(s)))
	} else {
		dst = binary.LittleEndian.AppendUint32(append(dst, long), uint32(len(s)))
	}
	return append(append(dst, s...), opMemoize)
}

func pickleInt(dst []byte, n int64) []byte {
	switch {
	case 0 <= n && n <= math.MaxUint8:
		return append(dst, opBinInt1, byte(n))
	case 0 <= n && n <= math.MaxUint16:
		return binary.LittleEndian.AppendUint16(append(dst, opBinInt2), uint16(n))
	case math.MinInt32 <= n && n <= math.MaxInt32:
		return binary.LittleEndian.AppendUint32(append(dst, opBinInt), uint32(n))
	}
	return pickleLong(dst, big.NewInt(n))
}

// pickleLong writes an integer in the fewest little-endian bytes that keep its sign in two's complement.
func pickleLong(dst []byte, n *big.Int) []byte {
	size := n.BitLen()/8 + 1
	if n.Sign() < 0 {
		size = new(big.Int).Not(n).BitLen()/8 + 1
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	raw := n.FillBytes(make([]byte, size))
	slices.Reverse(raw)
	return append(append(dst, opLong1, byte(size)), raw...)
}
