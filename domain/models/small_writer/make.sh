#!/bin/sh
# Make the model of this folder again, from a checkout of Tacit: about twelve minutes of one core.
#
#   git clone https://github.com/computationalstylistics/100_english_novels && git -C 100_english_novels checkout 143e601875d7
#   domain/models/small_writer/make.sh 100_english_novels/corpus NEW-FOLDER [options of `tacit models make`]
#
# The text: ten novels whose authors died before 1900, which are in the public domain; a line is a paragraph.
set -eu
corpus=$1 folder=$2
shift 2
for novel in Cbronte_Jane_1847 Eliot_Daniel_1876 Eliot_Felix_1866 Gaskell_Lovers_1863 Gaskell_Wives_1865 \
  Stevenson_Catriona_1893 Stevenson_Treasure_1883 Thackeray_Pendennis_1850 Trollope_Warden_1855 Wcollins_Woman_1860
do
  set -- --text "$corpus/$novel.txt" "$@"
done
# The same bits on one thread of the same processor; elsewhere sums are rounded otherwise, and so are the weights.
OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 exec tacit models make "$folder" \
  --vocabulary 2048 --width 96 --layers 2 --heads 4 --positions 256 --steps 1200 "$@"
