package kvevent

import (
	"encoding/binary"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// lenCodes are the codes of one msgpack family by the width of the length: within the code, 8, 16 and 32 bits.
type lenCodes struct {
	fixed        byte
	fixedBelow   int // lengths below this lie within the code
	w8, w16, w32 byte
	has8         bool
}

var (
	arrayCodes  = lenCodes{fixed: msgpcode.FixedArrayLow, fixedBelow: 16, w16: msgpcode.Array16, w32: msgpcode.Array32}
	stringCodes = lenCodes{fixed: msgpcode.FixedStrLow, fixedBelow: 32, w8: msgpcode.Str8, has8: true,
		w16: msgpcode.Str16, w32: msgpcode.Str32}
	binCodes = lenCodes{w8: msgpcode.Bin8, has8: true, w16: msgpcode.Bin16, w32: msgpcode.Bin32}
)

// appendLen writes a head in the fewest bytes, as msgspec does.
func appendLen(dst []byte, c lenCodes, n int) []byte {
	switch {
	case n < c.fixedBelow:
		return append(dst, c.fixed|byte(n))
	case c.has8 && n <= math.MaxUint8:
		return append(dst, c.w8, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, c.w16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, c.w32), uint32(n))
}

func appendString(dst []byte, s string) []byte {
	return append(appendLen(dst, stringCodes, len(s)), s...)
}

func appendStringOrNil(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, msgpcode.Nil)
	}
	return appendString(dst, s)
}

// appendUint writes an unsigned integer in the fewest bytes.
func appendUint(dst []byte, n uint64) []byte {
	switch {
	case n <= math.MaxInt8:
		return append(dst, byte(n))
	case n <= math.MaxUint8:
		return append(dst, msgpcode.Uint8, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, msgpcode.Uint16), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, msgpcode.Uint32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, msgpcode.Uint64), n)
}

// appendInt writes a signed integer in the fewest bytes.
func appendInt(dst []byte, n int64) []byte {
	switch {
	case n >= 0:
		return appendUint(dst, uint64(n))
	case n >= -32:
		return append(dst, byte(n))
	case n >= math.MinInt8:
		return append(dst, msgpcode.Int8, byte(n))
	case n >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, msgpcode.Int16), uint16(n))
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, msgpcode.Int32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, msgpcode.Int64), uint64(n))
}
