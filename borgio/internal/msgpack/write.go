package msgpack

import (
	"encoding/binary"
	"math"
)

// AppendMap appends the start of a map of n pairs.
func AppendMap(b []byte, n int) []byte { return appendCount(b, n, 0x80, 0xde) }

// AppendArray appends the start of an array of n values.
func AppendArray(b []byte, n int) []byte { return appendCount(b, n, 0x90, 0xdc) }

func appendCount(b []byte, n int, fix, wide byte) []byte {
	switch {
	case n < 16:
		return append(b, fix|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, wide), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, wide+1), uint32(n))
}

// AppendBytes appends raw bytes in the old dialect: never bin, never str8.
func AppendBytes[T string | []byte](b []byte, s T) []byte {
	return append(AppendRawHeader(b, len(s)), s...)
}

// AppendRawHeader appends what comes before n raw bytes.
func AppendRawHeader(b []byte, n int) []byte {
	switch {
	case n < 32:
		return append(b, 0xa0|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
}

// AppendInt appends a whole number in its shortest form, which is also Borg's.
func AppendInt(b []byte, v int64) []byte {
	switch {
	case v >= -32 && v < 1<<7:
		return append(b, byte(v))
	case v >= 1<<32:
		return binary.BigEndian.AppendUint64(append(b, 0xcf), uint64(v))
	case v >= 1<<16:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
	case v >= 1<<8:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(v))
	case v >= 0:
		return append(b, 0xcc, byte(v))
	case v >= math.MinInt8:
		return append(b, 0xd0, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(b, 0xd1), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(b, 0xd2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
}

// AppendFloat appends a number with double precision.
func AppendFloat(b []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v))
}

// AppendBool appends a truth value.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xc3)
	}
	return append(b, 0xc2)
}

// AppendNil appends a nil.
func AppendNil(b []byte) []byte { return append(b, 0xc0) }
