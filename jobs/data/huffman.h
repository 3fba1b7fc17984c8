// Decodes the Huffman codes of a baseline JPEG in place of libjpeg-turbo's own decoder, which takes most of the time of a crop: a table gives run,
// value and length of a code and its value bits at once. `jpeg_rows.h` puts it in; everything after the codes stays libjpeg's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include "clones.h"

class HuffmanTable {
  public:
    static constexpr int BITS = 11;  // of a lookup
    static constexpr uint8_t END = 64;  // a run beyond the block
    struct Entry {
        int16_t value;
        uint8_t run, bits;  // bits: of code and value together; 0 where they are longer than a lookup
    };
    // Two codes in a row, if both fit into a lookup. If not, the second value is a zero that nothing follows.
    struct Pair {
        int16_t value, second;
        uint8_t run, next, steps, bits;  // next: from the first coefficient to the second value's; steps: to the one after both
    };

    // Of the symbols run << 4 | size. `direct`: of differences of the first coefficient, whose symbols are sizes.
    void make(const JHUFF_TBL& source, bool direct) {
        if (made_ && direct == direct_ && !std::memcmp(source.bits, lengths_, 17) && !std::memcmp(source.huffval, symbols_, 256)) return;
        std::memcpy(lengths_, source.bits, 17), std::memcpy(symbols_, source.huffval, 256);
        std::memset(entries_, 0, sizeof entries_);
        made_ = true, direct_ = direct;
        int code = 0, number = 0;
        for (int length = 1; length <= 16; ++length, code <<= 1) {
            offset_[length] = number - code;
            for (int i = 0; i < lengths_[length]; ++i, ++number, ++code)
                if (length <= BITS) enter(code, length, symbols_[number]);
            limit_[length] = code;  // the first code that is longer
        }
        if (direct) return;
        for (int i = 0; i < 1 << BITS; ++i) {
            const Entry first = entries_[i], second = entries_[(i << first.bits) & ((1 << BITS) - 1)];
            const int after = first.run + 1;
            if (first.run == END)
                pairs_[i] = {0, 0, 0, 0, END, first.bits};
            else if (second.bits == 0 || first.bits + second.bits > BITS)
                pairs_[i] = {first.value, 0, first.run, uint8_t(after), uint8_t(after), first.bits};
            else
                pairs_[i] = {first.value, second.value, first.run, uint8_t(second.run == END ? after : after + second.run),
                             uint8_t(after + second.run + 1), uint8_t(first.bits + second.bits)};
        }
    }

    ALWAYS_INLINE Entry at(uint64_t bits) const { return entries_[bits >> (64 - BITS)]; }
    ALWAYS_INLINE Pair pair_at(uint64_t bits) const { return pairs_[bits >> (64 - BITS)]; }

    // For codes that are longer than a lookup. bits of 0: there is no such code.
    Entry longer(uint64_t bits) const {
        for (int length = 1; length <= 16; ++length) {
            const int code = int(bits >> (64 - length));
            if (code < limit_[length]) return entry(symbols_[(code + offset_[length]) & 255], length, bits << length);
        }
        return {0, END, 0};
    }

  private:
    Entry entry(int symbol, int length, uint64_t value_bits) const {
        const int size = symbol & 15, run = direct_ ? 0 : symbol >> 4;
        int value = size ? int(value_bits >> (64 - size)) : 0;
        if (size && value < 1 << (size - 1)) value -= (1 << size) - 1;
        const bool end = !direct_ && size == 0 && run != 15;
        return {int16_t(value), end ? END : uint8_t(run), uint8_t(length + size)};
    }
    void enter(int code, int length, int symbol) {
        const int size = symbol & 15, rest = BITS - length;
        if (size > rest) return;
        for (int i = 0; i < 1 << rest; ++i) entries_[code << rest | i] = entry(symbol, length, rest ? uint64_t(i) << (64 - rest) : 0);
    }
    Entry entries_[1 << BITS];
    Pair pairs_[1 << BITS];
    int limit_[17], offset_[17];
    uint8_t lengths_[17], symbols_[256];
    bool made_ = false, direct_ = false;
};

#pragma pack(push, 1)
struct RowStart {  // jobs.data.row_starts.START, field for field
    uint32_t bit;  // of the JPEG's bytes: where the codes of a row of MCUs begin
    int16_t last[3];  // the first coefficients of the components' blocks before, from which the next ones differ
};
#pragma pack(pop)

class HuffmanDecoder {
  public:
    // False where this is not a JPEG for it: other codings, several scans, restarts.
    bool start(jpeg_decompress_struct& decoder) {
        if (decoder.progressive_mode || decoder.arith_code || decoder.restart_interval || decoder.data_precision != 8 ||
            decoder.comps_in_scan != decoder.num_components || decoder.blocks_in_MCU > D_MAX_BLOCKS_IN_MCU)
            return false;
        thread_local HuffmanTable tables[2][NUM_HUFF_TBLS];
        for (int i = 0; i < decoder.comps_in_scan; ++i) {
            const jpeg_component_info& component = *decoder.cur_comp_info[i];
            const JHUFF_TBL *first = decoder.dc_huff_tbl_ptrs[component.dc_tbl_no], *rest = decoder.ac_huff_tbl_ptrs[component.ac_tbl_no];
            if (!first || !rest) return false;
            tables[0][component.dc_tbl_no].make(*first, true), tables[1][component.ac_tbl_no].make(*rest, false);
        }
        for (int i = 0; i < decoder.blocks_in_MCU; ++i) {
            component_[i] = decoder.MCU_membership[i];
            const jpeg_component_info& component = *decoder.cur_comp_info[component_[i]];
            first_[i] = &tables[0][component.dc_tbl_no], rest_[i] = &tables[1][component.ac_tbl_no];
        }
        blocks_ = decoder.blocks_in_MCU;
        at_ = decoder.src->next_input_byte, end_ = at_ + decoder.src->bytes_in_buffer;
        across_ = int(decoder.MCUs_per_row);
        return true;
    }

    // With the starts of all rows of MCUs, only the codes of a box are read: within columns [first, last] of MCUs, of rows that are wanted.
    // content: the bytes from which starts count. Without effect where they are not those of this JPEG.
    void use(const RowStart* starts, int rows, const uint8_t* content, int first, int last) {
        if (rows == 0 || starts[0].bit != 8 * size_t(at_ - content) || starts[0].last[0] || starts[0].last[1] || starts[0].last[2]) return;
        starts_ = starts, rows_ = rows, content_ = content, first_column_ = first, last_column_ = last;
    }

    // Where the next code begins.
    RowStart start_here(const uint8_t* content) const {
        const uint8_t* at = at_;
        int unread = left_ - padding_;  // bits of bytes before `at`
        for (; unread > 0; unread -= 8) at -= at - content >= 2 && at[-1] == 0 && at[-2] == 0xFF ? 2 : 1;
        return {uint32_t(8 * (at - content) - unread), {int16_t(last_[0]), int16_t(last_[1]), int16_t(last_[2])}};
    }

    // The next MCU. `blocks` are zero before; null where their coefficients are not wanted.
    void next_mcu(JBLOCKROW* blocks) {
        if (starts_) {
            const int column = column_, row = row_;
            if (++column_ == across_) column_ = 0, ++row_;
            if (!blocks || column > last_column_) return;
            if (column == 0) go_to(row);
            if (column < first_column_) blocks = nullptr;
        }
        decode(blocks);
    }

    // One MCU, as `next_mcu` says.
    CLONES void decode(JBLOCKROW* blocks) {
        for (int i = 0; i < blocks_; ++i)
            if (blocks)
                block<true>(i, *blocks[i]);
            else
                block<false>(i, nullptr);
    }

    // False where the bits ended early, or held something that is no code.
    bool sound() const { return !wrong_ && padding_ <= left_; }

  private:
    void go_to(int row) {
        const RowStart* start = starts_ + row;
        if (row >= rows_ || content_ + start->bit / 8 > end_ || padding_ > left_) {
            wrong_ = true;
            return;
        }
        at_ = content_ + start->bit / 8, bits_ = 0, left_ = padding_ = 0;
        for (int i = 0; i < 3; ++i) last_[i] = start->last[i];
        refill(bits_, left_);
        bits_ <<= start->bit % 8, left_ -= int(start->bit % 8);
    }

    template <bool STORE> ALWAYS_INLINE void block(int i, JCOEF* out) {
        // Where the k-th coefficient of the zigzag lies; runs beyond the block end in its last place, as in libjpeg.
        static constexpr uint8_t NATURAL[80] = {
            0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
            6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31,
            39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};
        uint64_t bits = bits_;
        int left = left_;
        const HuffmanTable::Entry difference = next(*first_[i], bits, left);
        last_[component_[i]] += difference.value;
        if (STORE) out[0] = JCOEF(last_[component_[i]]);
        const HuffmanTable& table = *rest_[i];
        for (int k = 1; k < 64;) {
            if (left < HuffmanTable::BITS) refill(bits, left);
            const HuffmanTable::Pair pair = table.pair_at(bits);
            if (__builtin_expect(pair.bits == 0 || k + pair.run >= 63, 0)) {  // a long code; or the last coefficient, which no code of this block follows
                const HuffmanTable::Entry entry = next(table, bits, left);
                k += entry.run;
                if (STORE && k < 80) out[NATURAL[k]] = entry.value;
                ++k;
                continue;
            }
            bits <<= pair.bits, left -= pair.bits;
            if (STORE) out[NATURAL[k + pair.run]] = pair.value, out[NATURAL[k + pair.next]] = pair.second;
            k += pair.steps;
        }
        bits_ = bits, left_ = left;
    }
    ALWAYS_INLINE HuffmanTable::Entry next(const HuffmanTable& table, uint64_t& bits, int& left) {
        if (left < 32) refill(bits, left);
        HuffmanTable::Entry entry = table.at(bits);
        if (__builtin_expect(entry.bits == 0, 0)) {
            entry = table.longer(bits);
            if (entry.bits == 0) wrong_ = true, entry.bits = 16;
        }
        bits <<= entry.bits, left -= entry.bits;
        return entry;
    }
    ALWAYS_INLINE void refill(uint64_t& bits, int& left) {
        if (end_ - at_ >= 8) {
            uint64_t word;
            std::memcpy(&word, at_, 8);
            word = __builtin_bswap64(word);
            if (((~word - 0x0101010101010101u) & word & 0x8080808080808080u) == 0) {  // no byte is 0xFF
                bits |= word >> left;
                at_ += (63 - left) >> 3;
                left |= 56;
                return;
            }
        }
        for (; left <= 56; left += 8) {
            uint64_t byte = 0;
            if (at_ < end_ && *at_ != 0xFF)
                byte = *at_++;
            else if (end_ - at_ >= 2 && at_[1] == 0)
                byte = 0xFF, at_ += 2;
            else
                padding_ += 8;  // a marker or the end
            bits |= byte << (56 - left);
        }
    }

    const HuffmanTable *first_[D_MAX_BLOCKS_IN_MCU], *rest_[D_MAX_BLOCKS_IN_MCU];
    int component_[D_MAX_BLOCKS_IN_MCU], blocks_ = 0, last_[MAX_COMPS_IN_SCAN] = {};
    const uint8_t *at_ = nullptr, *end_ = nullptr;
    uint64_t bits_ = 0;
    int left_ = 0, padding_ = 0;  // bits that are in `bits_`, and zeros that were appended to it
    bool wrong_ = false;
    const RowStart* starts_ = nullptr;
    const uint8_t* content_ = nullptr;
    int across_ = 0, rows_ = 0, first_column_ = 0, last_column_ = 0, column_ = 0, row_ = 0;  // MCUs
};
