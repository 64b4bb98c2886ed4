"""Font families that have Chinese characters, the best first."""

CJK_FONTS = (
    'Noto Sans CJK SC',
    'Noto Sans SC',
    'Source Han Sans SC',
    'Source Han Sans CN',
    'Noto Sans CJK JP',  # the first face of the Noto collection, and the only one that matplotlib before 3.11 reads
    'WenQuanYi Micro Hei',
    'WenQuanYi Zen Hei',
    'Microsoft YaHei',
    'SimHei',
    'PingFang SC',
    'Arial Unicode MS',
)
