package blockkey

import (
	"encoding/binary"
	"math"
	"math/big"
)

// CBOR major types, RFC 8949 section 3.1.
const (
	cborUint  = 0 << 5
	cborNeg   = 1 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborNull  = 0xf6
)

// appendCBOR appends v in canonical CBOR (RFC 8949 section 4.2), as Python's cbor2.dumps(v, canonical=True) writes it.
func appendCBOR(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return append(cborHead(dst, cborText, uint64(len(v))), v...)
	case []byte:
		return append(cborHead(dst, cborBytes, uint64(len(v))), v...)
	case int64:
		if v < 0 {
			return cborHead(dst, cborNeg, uint64(-1-v))
		}
		return cborHead(dst, cborUint, uint64(v))
	case *big.Int: // at most 64 bits in the one algorithm that has it
		return cborHead(dst, cborUint, v.Uint64())
	case []uint32:
		dst = cborHead(dst, cborArray, uint64(len(v)))
		for _, t := range v {
			dst = cborHead(dst, cborUint, uint64(t))
		}
		return dst
	case tuple:
		dst = cborHead(dst, cborArray, uint64(len(v)))
		for _, item := range v {
			dst = appendCBOR(dst, item)
		}
		return dst
	}
	return append(dst, cborNull)
}

// cborHead appends a major type with its argument in the fewest bytes.
func cborHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}
