// Rows of a JPEG from libjpeg-turbo: only the rows and columns that are asked for are transformed and converted. They equal those of the whole image.
#pragma once
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

#include "huffman.h"

// No call into libjpeg may pass an error over a frame with destructors: each sets its own target.
class JpegRows {
  public:
    JpegRows(const uint8_t* content, size_t bytes) : content_(content), bytes_(bytes) {
        decoder_.err = jpeg_std_error(&errors_);
        errors_.error_exit = [](j_common_ptr common) { longjmp(owner(common)->target_, 1); };
        errors_.output_message = [](j_common_ptr) {};
        errors_.emit_message = [](j_common_ptr common, int level) {
            if (level < 0 && common->err->msg_code != JWRN_EXTRANEOUS_DATA) ++common->err->num_warnings;  // bytes between segments harm no pixel
        };
        decoder_.client_data = this;
        if (setjmp(target_)) return;
        jpeg_create_decompress(&decoder_);
        made_ = true;
    }
    ~JpegRows() {
        if (made_ && !setjmp(target_)) jpeg_destroy_decompress(&decoder_);
    }
    JpegRows(const JpegRows&) = delete;
    JpegRows& operator=(const JpegRows&) = delete;

    // False where the JPEG is damaged or has other dimensions. `next` then gives columns [left, right) of row `top`, and of those below it.
    // denominator: 1, 2, 4 or 8; the image is decoded at that part of its size, in whose pixels the rest is given. starts: of its rows of MCUs, if known.
    bool start(int height, int width, int denominator, int top, int left, int right, const RowStart* starts, int count) {
        if (!made_ || setjmp(target_)) return false;
        const bool ours = open(denominator);
        if (int(decoder_.image_height) != height || int(decoder_.image_width) != width) return false;
        // The columns at the edge of what is decoded are upsampled without their neighbours: two more on either side keep ours whole.
        JDIMENSION begin = JDIMENSION(left > EDGE ? left - EDGE : 0), end = JDIMENSION(right + EDGE);
        if (end > decoder_.output_width) end = decoder_.output_width;
        JDIMENSION wide = end - begin;
        if (wide < decoder_.output_width) jpeg_crop_scanline(&decoder_, &begin, &wide);
        const int mcu = decoder_.max_h_samp_factor * DCTSIZE / denominator;  // columns of an MCU
        if (ours) huffman_.use(starts, count, content_, int(begin) / mcu, (int(begin + wide) + mcu - 1) / mcu - 1);
        skip_ = size_t(3) * (JDIMENSION(left) - begin);
        row_.resize(size_t(3) * decoder_.output_width + MISALIGNED);
        if (top > 0 && int(jpeg_skip_scanlines(&decoder_, JDIMENSION(top))) != top) return false;
        return true;
    }

    // Null where the JPEG ends or is damaged.
    const uint8_t* next() {
        if (setjmp(target_)) return nullptr;
        JSAMPROW row = row_.data() + MISALIGNED;
        return jpeg_read_scanlines(&decoder_, &row, 1) == 1 ? row + skip_ : nullptr;
    }

    // Writes where each row of MCUs starts, which takes a pass over all codes. Returns their number; 0 where they cannot be known, or there are more
    // than `room`.
    int find_starts(RowStart* starts, int room) {
        if (!made_ || setjmp(target_)) return 0;
        if (!open(1) || decoder_.num_components != 3 || int(decoder_.MCU_rows_in_scan) > room || bytes_ >= size_t(1) << 28) return 0;
        for (JDIMENSION row = 0; row < decoder_.MCU_rows_in_scan; ++row) {
            starts[row] = huffman_.start_here(content_);
            for (JDIMENSION column = 0; column < decoder_.MCUs_per_row; ++column) huffman_.decode(nullptr);
        }
        return sound() ? int(decoder_.MCU_rows_in_scan) : 0;
    }

    bool sound() const { return errors_.num_warnings == 0 && huffman_.sound(); }

  private:
    static constexpr int EDGE = 2;
    static constexpr int MISALIGNED = 8;  // bytes; libjpeg-turbo writes aligned rows past the cache, and they are read at once
    static JpegRows* owner(j_common_ptr common) { return static_cast<JpegRows*>(common->client_data); }
    // Reads the header. True where our Huffman decoder reads the codes. Called where `target_` is set.
    bool open(int denominator) {
        jpeg_mem_src(&decoder_, content_, bytes_);
        jpeg_read_header(&decoder_, TRUE);
        decoder_.out_color_space = JCS_RGB;
        decoder_.scale_num = 1, decoder_.scale_denom = unsigned(denominator);
        jpeg_start_decompress(&decoder_);
        return decode_faster();
    }
    // Puts our Huffman decoder into libjpeg-turbo's. Nothing has been read of the codes yet, and they are in memory whole.
    bool decode_faster() {
#ifdef LIBJPEG_TURBO_VERSION
        struct Entropy {  // the start of jpeg_entropy_decoder in jpegint.h, which few systems install
            void (*start_pass)(j_decompress_ptr);
            boolean (*decode_mcu)(j_decompress_ptr, JBLOCKROW*);
        };
        if (jpeg_has_multiple_scans(&decoder_) || !huffman_.start(decoder_)) return false;
        reinterpret_cast<Entropy*>(decoder_.entropy)->decode_mcu = [](j_decompress_ptr decoder, JBLOCKROW* blocks) -> boolean {
            owner(j_common_ptr(decoder))->huffman_.next_mcu(blocks);
            return TRUE;
        };
        return true;
#else
        return false;
#endif
    }
    const uint8_t* content_;
    size_t bytes_, skip_ = 0;
    bool made_ = false;
    jpeg_decompress_struct decoder_{};
    jpeg_error_mgr errors_{};
    HuffmanDecoder huffman_;
    jmp_buf target_;
    std::vector<uint8_t> row_;
};
